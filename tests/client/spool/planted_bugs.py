"""Bugs that were planted in the spool, and the test that catches each.

`python -m tests.client.spool.planted_bugs [WORD ...]` plants them as `tests.client.planted_bugs`
does. The power-loss machine tells random stories: what one run misses the next may catch.
"""

from __future__ import annotations

from tests.client.planted_bugs import PlantedBug, plant

HERE = "tests/client/spool"
POWER = f"{HERE}/test_power_loss.py"
LOG = f"{HERE}/test_log.py"
FRAMES = f"{HERE}/test_frames.py"
JOURNAL = f"{HERE}/test_journal.py"
SLOTS = f"{HERE}/test_slots.py"
INTERRUPTS = f"{HERE}/test_interrupts.py::test_an_interrupt_anywhere_leaves_a_log_that_goes_on"


def any_power_loss(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = f"{POWER}::test_a_slot_loses_nothing_that_it_promised_to_keep"
    return PlantedBug(name, f"spool/{file}", right, wrong, test)


def any_damage(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = f"{FRAMES}::test_damage_never_changes_a_frame_and_is_counted"
    return PlantedBug(name, f"spool/{file}", right, wrong, test)


BUGS = [
    any_power_loss(
        "a sync forgets the data",
        "log.py",
        "                segment.sync()",
        "                pass",
    ),
    PlantedBug(
        "a sync forgets segments that are full",
        "spool/log.py",
        "for segment in (*full, active):",
        "for segment in (active,):",
        f"{POWER}::test_a_sync_covers_the_segments_that_became_full",
    ),
    any_power_loss(
        "a sync forgets the directory",
        "log.py",
        "            if changed:",
        "            if False:",
    ),
    any_power_loss(
        "what is published during a sync counts as synced",
        "log.py",
        "            self.durable_fsn = target",
        "            self.durable_fsn = self.published_fsn + 1",
    ),
    any_power_loss(
        "recovery does not sync what it found",
        "segments.py",
        "            files.truncate(path, found.end)",
        "            pass",
    ),
    PlantedBug(
        "a slot that was emptied while it was looked for goes before one that holds signals",
        "spool/slots.py",
        'return _with_lanes(path, lanes, files) if first_fsns(files, path / "log") else None',
        "return _with_lanes(path, lanes, files)",
        f"{SLOTS}::test_a_slot_of_others_that_is_emptied_does_not_go_before_one_that_holds_signals",
    ),
    PlantedBug(
        "slots are tried without keeping others from trying them",
        "spool/slots.py",
        "            with _nobody_else_trying(path, files), ExitStack() as undo_tried:",
        "            with ExitStack() as undo_tried:",
        f"{SLOTS}::test_who_looks_at_a_slot_for_a_moment_does_not_send_its_owner_to_another",
    ),
    any_power_loss(
        "a segment goes while it holds something unfinished",
        "segments.py",
        "pair[1] <= fsn + 1",
        "pair[0] <= fsn + 1",
    ),
    any_power_loss(
        "numbers are used again after a loss of power",
        "slots.py",
        "if self._slot_file.epoch and not",
        "if False and not",
    ),
    PlantedBug(
        "a second loss of power before anything was synced gives the same numbers",
        "spool/slots.py",
        "(self.log.published_fsn + 1) // FSN_BLOCK",
        "self.log.published_fsn // FSN_BLOCK",
        f"{POWER}::test_numbers_jump_again_when_power_is_lost_before_anything_was_synced",
    ),
    any_power_loss(
        "a batch that lost signals keeps its request_id",
        "slots.py",
        "self._journal.reconcile(found.found, uuid4)",
        "pass",
    ),
    any_power_loss(
        "a new journal file takes its place before it is synced",
        "journal.py",
        "            writer.sync()\n            self._files.rename",
        "            self._files.rename",
    ),
    any_power_loss(
        "a journal file goes before its successor has its name",
        "journal.py",
        "            self._files.sync_directory(self._directory)\n        except",
        "        except",
    ),
    any_power_loss(
        "a checkpoint forgets what was begun",
        "journal.py",
        "return _Checkpoint(list(self.batches.values()), begun)",
        "return _Checkpoint(list(self.batches.values()), [])",
    ),
    PlantedBug(
        "a journal that failed to sync is trusted",
        "spool/journal.py",
        "                self._begin_anew()\n",
        "                raise\n",
        f"{JOURNAL}::test_what_a_failed_sync_forgot_is_written_again",
    ),
    PlantedBug(
        "the next sync of a journal that failed says that all is well",
        "spool/journal.py",
        "            self._unsynced = self._failed = True\n            self._writer.close()\n",
        "            pass\n",
        f"{JOURNAL}::test_a_journal_that_no_sync_can_save_refuses_until_the_disk_works_again",
    ),
    PlantedBug(
        "halves that are split a second time stand beside the first",
        "spool/journal.py",
        "if request_id in self.batches else self._sharing_with(batches)",
        "if request_id in self.batches else set()",
        f"{JOURNAL}::test_halves_that_were_refused_may_be_others_the_next_time",
    ),
    PlantedBug(
        "a journal that fails to sync keeps the log from it",
        "spool/slots.py",
        '            trying.do(f"sync the log of {slot.path}", slot.log.sync, None)\n',
        "            if not trying.failures:\n                slot.log.sync()\n",
        f"{SLOTS}::test_a_journal_that_cannot_be_synced_does_not_keep_the_log_from_it",
    ),
    any_damage(
        "checksums are not looked at",
        "frames.py",
        "        if crc32(data[at + 8 : end], seed ^ length) != checksum:",
        "        if False:",
    ),
    any_damage(
        "nothing is found behind damage",
        "frames.py",
        "        if again is None:",
        "        if True:",
    ),
    any_damage(
        "the length of a frame is not covered by its checksum",
        "frames.py",
        "        if crc32(data[at + 8 : end], seed ^ length) != checksum:",
        "        if crc32(data[at + 8 : body_at], seed) != checksum:",
    ),
    PlantedBug(
        "a frame of another segment checks",
        "spool/frames.py",
        'return crc32(first_fsn.to_bytes(8, "little"), crc32(uuid.bytes))',
        "return crc32(uuid.bytes)",
        f"{FRAMES}::test_a_frame_of_another_segment_is_no_frame",
    ),
    PlantedBug(
        "records behind damage are believed",
        "spool/journal.py",
        "        records = [_decoder.decode(frame.body) for frame in frames]",
        "        from signal_persistence.spool.frames import scan\n"
        "        frames = scan(data, HEADER_BYTES, seed_of(_NOBODY, number), number - 1).frames\n"
        "        records = [_decoder.decode(frame.body) for frame in frames]",
        f"{JOURNAL}::test_nothing_behind_damage_is_believed",
    ),
    PlantedBug(
        "every publisher syncs for itself",
        "spool/log.py",
        "            target = self.published_fsn",
        "            target = self.durable_fsn + 1",
        f"{LOG}::test_waiting_publishers_share_a_sync",
    ),
    PlantedBug(
        "a failed sync is forgotten",
        "spool/log.py",
        "            self._end(failure)\n",
        "",
        f"{LOG}::test_a_disk_that_failed_once_is_not_trusted_again",
    ),
    PlantedBug(
        "a child keeps the locks of its parent",
        "spool/files.py",
        "        _open_locks.add(self)\n",
        "",
        f"{HERE}/test_files.py::test_a_child_has_no_lock_that_another_thread_takes_at_the_fork",
    ),
    PlantedBug(
        "a fork does not wait for a lock that is just taken",
        "spool/files.py",
        "    def lock(self, path: Path, *, names_owner: bool = True) -> Lock | None:\n"
        "        with _errors_about(path), _lock_files:",
        "    def lock(self, path: Path, *, names_owner: bool = True) -> Lock | None:\n"
        "        with _errors_about(path):",
        f"{HERE}/test_files.py::test_a_child_has_no_lock_that_another_thread_takes_at_the_fork",
    ),
    PlantedBug(
        "a child does not know that a slot is its parent's",
        "spool/slots.py",
        "os.register_at_fork(after_in_child=_abandon_in_child)",
        "",
        f"{SLOTS}::test_a_forked_child_leaves_the_slot_to_its_parent",
    ),
    PlantedBug(
        "a frame that an interrupted publish() wrote is written over",
        "spool/segments.py",
        "            if unpack_length_from(self._buffer, at)[0]:\n",
        "            if False:\n",
        INTERRUPTS,
    ),
    PlantedBug(
        "an interrupted publish() uses its number again",
        "spool/log.py",
        "                self.published_fsn = max(self.published_fsn, self._active.last_fsn)\n",
        "",
        INTERRUPTS,
    ),
    PlantedBug(
        "an interrupted publish() leaves a segment that nobody writes to",
        "spool/log.py",
        "                self._files.remove(path)\n            raise\n",
        "                pass\n            raise\n",
        INTERRUPTS,
    ),
    PlantedBug(
        "an interrupted close() is done a second time",
        "spool/files.py",
        "    def close(self) -> None:\n"
        "        descriptor, self._descriptor = self._descriptor, -1\n"
        "        _close(descriptor)\n",
        "    def close(self) -> None:\n        _close(self._descriptor)\n"
        "        self._descriptor = -1\n",
        f"{HERE}/test_files.py::test_a_descriptor_is_closed_once_though_a_signal_handler_raises",
    ),
    PlantedBug(
        "a segment has its name before it has its room",
        "spool/files.py",
        '        temporary = path.with_name("new")\n',
        "        temporary = path\n",
        f"{HERE}/test_files.py::test_a_file_has_its_size_before_it_has_its_name",
    ),
    PlantedBug(
        "copies of damaged segments pile up",
        "spool/segments.py",
        "if name != copy.name][: 1 - _COPIES_KEPT]:",
        "if name != copy.name][:0]:",
        f"{LOG}::test_copies_of_damaged_segments_are_few_and_take_no_room_from_signals",
    ),
    PlantedBug(
        "a child writes to the slot of its parent",
        "spool/slots.py",
        "        self.log.abandon()\n",
        "",
        f"{SLOTS}::test_a_forked_child_leaves_the_slot_to_its_parent",
    ),
    PlantedBug(
        "a slot is taken without the credentials of all its lanes",
        "spool/slots.py",
        "    if not set(slot_file.lanes) <= set(lanes):",
        "    if False:",
        f"{SLOTS}::test_a_slot_with_lanes_of_others_is_left_alone_until_it_is_empty",
    ),
    PlantedBug(
        "room is not taken ahead",
        "spool/files.py",
        "        os.posix_fallocate(descriptor, 0, size)",
        "        os.ftruncate(descriptor, size)",
        f"{HERE}/test_full_disk.py::test_a_full_disk_refuses_and_everything_accepted_is_kept",
    ),
]


if __name__ == "__main__":
    plant(BUGS)
