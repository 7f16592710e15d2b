"""Bugs that were planted in the agent, and the test that catches each.

`python -m tests.client.agent.planted_bugs [WORD ...]` plants them, as the table of the producer.
"""

from __future__ import annotations

from tests.client.planted_bugs import PlantedBug, plant

BAD_SLOTS = "tests/client/agent/test_bad_slots.py"
FORWARDER = "tests/client/agent/test_forwarder.py"
PROCESSES = "tests/client/agent/test_agent_processes.py"
WORKER = "tests/client/agent/test_worker.py"
RESULTS = "tests/client/agent/test_results.py"
DOORBELL = "tests/client/agent/test_doorbell.py"
ACCOUNTS = "tests/client/agent/test_accounts.py"

BUGS = [
    PlantedBug(
        "a batch is sent before the journal has it",
        "agent/forwarder.py",
        "                await self._write(lambda: self._journal_of(batch).begin(written))\n",
        "                assert written\n",
        f"{FORWARDER}::test_a_batch_that_was_begun_is_sent_again_as_it_was",
    ),
    PlantedBug(
        "the journal sorts a batch by slot",
        "agent/forwarder.py",
        "    runs = groupby(map(_place, batch.records), lambda record: record.slot.uuid)\n",
        "    records = sorted(map(_place, batch.records), key=lambda record: record.slot.uuid)\n"
        "    runs = groupby(records, lambda record: record.slot.uuid)\n",
        f"{FORWARDER}::test_a_batch_that_was_begun_is_sent_again_as_it_was",
    ),
    PlantedBug(
        "a batch that is not whole keeps its request_id",
        "agent/forwarder.py",
        "        return Batch(self._sending.new_id(), left, in_doubt=True, begun=True)\n",
        "        return Batch(written.request_id, left, in_doubt=True, begun=True)\n",
        f"{FORWARDER}::test_of_a_batch_of_two_slots_each_share_is_sent_by_who_has_the_slot",
    ),
    PlantedBug(
        "what one slot was told already is left out of a batch that is sent again",
        "agent/forwarder.py",
        "        whole = Batch(written.request_id, found, in_doubt=True, begun=True)\n",
        "        whole = Batch(written.request_id, left, in_doubt=True, begun=True)\n",
        f"{FORWARDER}::test_a_batch_of_which_one_slot_was_told_already_is_sent_again_as_it_was",
    ),
    PlantedBug(
        "the share of a slot that is not here is forgotten",
        "agent/forwarder.py",
        "            if elsewhere:\n",
        "            if not elsewhere:\n",
        f"{FORWARDER}::test_of_a_batch_of_two_slots_each_share_is_sent_by_who_has_the_slot",
    ),
    PlantedBug(
        "the slot's own journal is not resumed",
        "agent/forwarder.py",
        "            self._resume(served.own_journal, {served.uuid})\n",
        "            pass\n",
        f"{FORWARDER}::test_what_a_sender_of_one_slot_began_goes_first_under_its_id",
    ),
    PlantedBug(
        "a later sender of the slot is not told what is finished",
        "agent/served_slot.py",
        "        self._note(self.identities[lane], ranges)\n",
        "",
        f"{FORWARDER}::test_what_a_sender_of_one_slot_began_goes_first_under_its_id",
    ),
    PlantedBug(
        "the accounts of a slot are read once",
        "agent/served_slot.py",
        "        if frames and self._learn_lanes():\n",
        "        if frames and not self.identities and self._learn_lanes():\n",
        f"{FORWARDER}::test_a_slot_that_changed_hands_is_sent_for_its_new_account",
    ),
    PlantedBug(
        "all lanes of a slot wait for the slowest",
        "agent/served_slot.py",
        "                ready.discard(frame.lane)\n",
        "                break\n",
        f"{FORWARDER}::test_an_account_that_cannot_be_sent_does_not_hold_up_the_others",
    ),
    PlantedBug(
        "a lane without room moves on",
        "agent/served_slot.py",
        "                ready.discard(frame.lane)\n",
        "                pass\n",
        f"{FORWARDER}::test_an_account_that_cannot_be_sent_does_not_hold_up_the_others",
    ),
    PlantedBug(
        "lost numbers are waited for",
        "agent/served_slot.py",
        "                self._finished.add(last + 1, frame.fsn - 1)\n",
        "                pass\n",
        f"{FORWARDER}::test_numbers_that_the_disk_lost_do_not_stop_the_count",
    ),
    PlantedBug(
        "segments are removed while their writer lives",
        "agent/served_slot.py",
        "        first = self._first_fsn()\n",
        "        for path in (self.slot.path / 'log').glob('*.seg'):\n"
        "            path.unlink()\n"
        "        first = self._first_fsn()\n",
        f"{FORWARDER}::test_the_disk_is_given_back_as_signals_finish",
    ),
    PlantedBug(
        "results go before they were read",
        "agent/served_slot.py",
        "        while len(self._told) > 1 and self._told[0][1] < first:\n",
        "        while len(self._told) > 1:\n",
        f"{FORWARDER}::test_results_that_were_read_go_and_the_last_one_stays",
    ),
    PlantedBug(
        "no dead letter",
        "agent/forwarder.py",
        "        await self._add_dead_letters(lane, batch, fates)\n",
        "",
        f"{FORWARDER}::test_what_the_service_refuses_is_a_dead_letter_and_a_report",
    ),
    PlantedBug(
        "the worker is told when the journal has forgotten the batch",
        "agent/forwarder.py",
        "            served.settle(number, fsns, result)\n",
        "            loop = asyncio.get_running_loop()\n"
        "            loop.call_later(0.3, served.settle, number, fsns, result)\n",
        f"{PROCESSES}::test_an_agent_killed_again_and_again_loses_and_doubles_nothing",
    ),
    PlantedBug(
        "a signal is finished before its worker is told",
        "agent/served_slot.py",
        "        finished = self._finished.with_ranges(ranges)\n",
        "        for first, last in ranges:\n            self._finished.add(first, last)\n"
        "        finished = self._finished\n",
        f"{FORWARDER}::test_what_a_full_disk_keeps_from_being_told_is_not_said_to_be_finished",
    ),
    PlantedBug(
        "a slot that cannot be read stops all others",
        "trying.py",
        "        except Exception as error:\n            self.failures += 1\n",
        "        except ZeroDivisionError as error:\n            self.failures += 1\n",
        f"{BAD_SLOTS}::test_a_slot_that_cannot_be_read_stops_no_other",
    ),
    PlantedBug(
        "a slot that cannot be adopted stops all others",
        "agent/process.py",
        "        if not self._adopt_together(forwarder, paths):\n",
        "        if not self._adopt_together(forwarder, paths) and False:\n",
        f"{BAD_SLOTS}::test_a_slot_that_cannot_be_adopted_stops_no_other",
    ),
    PlantedBug(
        "a slot that fails to be opened stays locked",
        "agent/process.py",
        "                undo.callback(slot.close)\n",
        "",
        f"{BAD_SLOTS}::test_a_slot_whose_lanes_cannot_be_read_is_not_kept_locked",
    ),
    PlantedBug(
        "an agent does not start with a batch of an account that has gone",
        "agent/forwarder.py",
        "            self._register(journal, written, batch, elsewhere)\n",
        "            _ = self._lanes[written.lane]\n"
        "            self._register(journal, written, batch, elsewhere)\n",
        f"{BAD_SLOTS}"
        "::test_a_batch_of_an_account_that_has_gone_does_not_keep_the_agent_from_starting",
    ),
    PlantedBug(
        "a worker does not believe the journal of who sent by itself",
        "agent/worker.py",
        "                if frame.fsn in finished or frame in sent:\n",
        "                if frame.fsn in finished:\n",
        f"{WORKER}::test_what_a_process_that_sent_by_itself_finished_is_not_reported_as_lost",
    ),
    PlantedBug(
        "an agent does not look whether another one runs",
        "agent/process.py",
        "        if lock is None:\n            return False\n",
        "        if lock is None:\n            lock = OS_FILES.lock(folder / str(time.time()))\n"
        "        assert lock\n",
        f"{PROCESSES}::test_of_agents_that_race_for_a_spool_one_sends",
    ),
    PlantedBug(
        "a worker does not send when no agent can be had",
        "agent/worker.py",
        "            await self._send_alone(until_agent=not is_there)\n",
        "",
        f"{PROCESSES}::test_a_host_without_credentials_for_an_agent_sends_from_each_process",
    ),
    PlantedBug(
        "an agent keeps a slot that it cannot send",
        "agent/process.py",
        'self._trying.do("release slots", forwarder.release_foreign, list[Path]()):\n',
        "list[Path]():\n",
        f"{PROCESSES}::test_an_agent_without_the_key_of_an_account_leaves_its_slots_to_the_traders",
    ),
    PlantedBug(
        "a worker does not start an agent",
        "agent/worker.py",
        "        code = await self._launcher.start()\n",
        "        code = 0\n",
        f"{WORKER}::test_a_producer_starts_the_agent_that_is_not_there",
    ),
    PlantedBug(
        "an agent that is asked to end goes on for as long as it takes",
        "agent/process.py",
        "            left = ends - time.monotonic()\n",
        "            left = 3600.0\n",
        f"{PROCESSES}::test_an_agent_that_is_asked_to_end_does_so_in_time_and_keeps_the_rest",
    ),
    PlantedBug(
        "an agent that is asked to end leaves what lingers",
        "agent/process.py",
        "            left = await self._drain(forwarder)\n",
        "            left = forwarder.unfinished\n",
        f"{PROCESSES}::test_an_agent_that_is_asked_to_end_sends_what_lingers",
    ),
    PlantedBug(
        "a worker forgets what is on disk only",
        "agent/worker.py",
        "        while lane.on_disk and not lane.waiting and lane.loaded < fsn:\n",
        "        while False:\n",
        f"{WORKER}::test_more_than_fits_into_memory_stays_on_disk_and_is_reported_all_the_same",
    ),
    PlantedBug(
        "what a former process left is not counted",
        "agent/worker.py",
        "        return sum(lane.on_disk for lane in by_number.values())\n",
        "        return 0\n",
        f"{WORKER}::test_what_a_former_process_left_counts_as_recovered_by_the_next_in_its_slot",
    ),
    PlantedBug(
        "seqs of a run are all the first",
        "agent/results.py",
        "self.first_seq + fsn - self.first_fsn\n",
        "self.first_seq\n",
        f"{RESULTS}::test_a_result_says_of_each_signal_what_its_report_says",
    ),
    PlantedBug(
        "a run goes on over a gap of seqs",
        "agent/results.py",
        "        and fate.seq == (None if first.seq is None else first.seq + distance)\n",
        "",
        f"{RESULTS}::test_a_result_says_of_each_signal_what_its_report_says",
    ),
    PlantedBug(
        "ranges that touch stay apart",
        "agent/results.py",
        "        begin = bisect_left(self._lasts, first - 1)\n",
        "        begin = bisect_left(self._lasts, first)\n",
        f"{RESULTS}::test_finished_ranges_stay_apart_and_beyond_the_prefix",
    ),
    PlantedBug(
        "a bell that cannot ring keeps quiet about it",
        "agent/doorbell.py",
        "        except OSError:\n            return False\n",
        "        except OSError:\n            return True\n",
        f"{DOORBELL}::test_a_ring_fails_when_nobody_listens_any_more",
    ),
    PlantedBug(
        "a file of keys that everybody can read is used",
        "agent/accounts.py",
        "stat.S_IMODE(status.st_mode) & 0o077:\n",
        "False:\n",
        f"{ACCOUNTS}::test_a_file_that_others_can_read_is_refused",
    ),
]


if __name__ == "__main__":
    plant(BUGS)
