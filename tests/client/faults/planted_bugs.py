"""Bugs that were planted in the client, and the test of this folder that catches each.

`python -m tests.client.faults.planted_bugs [WORD ...]` plants them as `tests.client.planted_bugs`
does; SIGNAL_TEST_STACK may name a running stack. Kills and forks are random: what one run misses
the next may catch.
"""

from __future__ import annotations

from tests.client.planted_bugs import PlantedBug, plant

HERE = "tests/client/faults"
DANGERS = f"{HERE}/test_known_dangers.py"


def any_kill(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = "test_nothing_is_lost_or_doubled_when_traders_are_killed_again_and_again"
    return PlantedBug(name, file, right, wrong, f"{HERE}/test_kills.py::{test}")


def any_process(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = "test_what_processes_published_is_stored_once_in_the_order_of_each"
    return PlantedBug(name, file, right, wrong, f"{HERE}/test_processes.py::{test}")


def any_network(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = "test_a_fault_delays_signals_and_neither_loses_nor_doubles_them"
    return PlantedBug(name, file, right, wrong, f"{HERE}/test_network_faults.py::{test}")


BUGS = [
    any_kill(
        "a batch counts as finished before it is sent",
        "outbox.py",
        "        self._journal.begin(self._written(lane, batch))\n",
        "        self._journal.begin(self._written(lane, batch))\n"
        "        self._journal.finish(batch.request_id)\n",
    ),
    any_kill(
        "a restart forgets the batches under way",
        "outbox.py",
        "for begun_batch in self._journal.open_batches:",
        "for begun_batch in ():",
    ),
    PlantedBug(
        "a slot that holds signals is not preferred",
        "spool/slots.py",
        "((path, _holding_with_lanes) for path in _slot_paths(project, files)),",
        "",
        f"{DANGERS}::test_a_slot_that_holds_signals_is_taken_before_an_empty_one",
    ),
    PlantedBug(
        "a slot is locked before its lanes are looked at",
        "spool/slots.py",
        "        if described(path, lanes, files) is None:\n            return None\n",
        "",
        f"{DANGERS}::test_who_leaves_a_slot_alone_does_not_lock_it_and_so_keeps_nobody_out",
    ),
    PlantedBug(
        "a forked child waits for a lock of the parent's threads",
        "ledger.py",
        "        deliveries = list(self._deliveries.values())\n",
        "        self.lock.acquire()\n        deliveries = list(self._deliveries.values())\n",
        f"{DANGERS}::test_a_child_forked_while_a_thread_counts_can_publish",
    ),
    any_process(
        "a forked child keeps the locks of its parent",
        "spool/slots.py",
        "os.register_at_fork(after_in_child=_abandon_in_child)",
        "",
    ),
    any_process(
        "programs inherit the locks",
        "spool/files.py",
        "            return _OsLock(descriptor)\n",
        "            os.set_inheritable(descriptor, True)\n"
        "            return _OsLock(descriptor)\n",
    ),
    any_process(
        "a relative directory is looked up again and again",
        "producer.py",
        "Path(spool_dir).absolute()",
        "Path(spool_dir)",
    ),
    any_process(
        "a forked child goes on with the slot of its parent",
        "producer.py",
        "os.register_at_fork(after_in_child=_after_fork_in_child)",
        "",
    ),
    any_network(
        "a retry gets a new request_id",
        "sender.py",
        "        batch.attempts += 1\n",
        "        batch.attempts += 1\n        batch.request_id = sending.new_id()\n",
    ),
    any_network(
        "a finished signal is pending for a moment longer",
        "ledger.py",
        "            self._by_status.update([fate.status for fate in fates])\n",
        "        threading.Event().wait(0.005)\n"
        "        self._by_status.update([fate.status for fate in fates])\n",
    ),
]


if __name__ == "__main__":
    plant(BUGS)
