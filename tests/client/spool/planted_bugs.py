"""Bugs that were planted in the spool, and the test that catches each.

`python -m tests.client.spool.planted_bugs [WORD ...]` plants them as `tests.client.planted_bugs`
does. The power-loss machine tells random stories: what one run misses the next may catch.
"""

from __future__ import annotations

import sys

from tests.client.planted_bugs import PlantedBug, is_caught

HERE = "tests/client/spool"
POWER = f"{HERE}/test_power_loss.py"
LOG = f"{HERE}/test_log.py"
FRAMES = f"{HERE}/test_frames.py"
JOURNAL = f"{HERE}/test_journal.py"
SLOTS = f"{HERE}/test_slots.py"


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
        "spool/slots.py",
        "os.register_at_fork(after_in_child=_abandon_in_child)",
        "",
        f"{SLOTS}::test_a_child_does_not_keep_the_lock_of_a_dead_parent",
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


def main() -> None:
    missed = []
    for bug in BUGS:
        if all(word in bug.name for word in sys.argv[1:]):
            caught = is_caught(bug)
            sys.stdout.write(f"{'caught' if caught else 'MISSED'}  {bug.name}\n")
            sys.stdout.flush()
            missed += [] if caught else [bug.name]
    sys.exit(f"Not caught: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
