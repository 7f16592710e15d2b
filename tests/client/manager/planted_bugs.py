"""Bugs that were planted in the manager, the logs and the metrics, and the test that catches each.

`python -m tests.client.manager.planted_bugs [WORD ...]` plants them as `tests.client.planted_bugs`
does.
"""

from __future__ import annotations

from tests.client.planted_bugs import PlantedBug, plant

MANAGER = "tests/client/manager/test_signal_manager.py"


def case(name: str, file: str, right: str, wrong: str, test: str) -> PlantedBug:
    return PlantedBug(name, f"manager/{file}", right, wrong, f"{MANAGER}::{test}")


BUGS = [
    case(
        "a change of the mode does not wait for those held up by the last",
        "account.py",
        "self.changed.wait_for(lambda: self._held_up == 0)",
        "pass",
        "test_who_waited_for_a_change_of_the_mode_goes_before_the_next_change",
    ),
    case(
        "a signal that failed on its way is given up",
        "account.py",
        'self.book.move(entry, "waiting")\n            self.changed.notify_all()',
        'self.book.move(entry, "stored")\n            self.changed.notify_all()',
        "test_a_signal_that_failed_on_its_way_is_sent_again",
    ),
    case(
        "changes are sent before their signals are stored",
        "book.py",
        'entry.place == "stored" and bool(entry.changes))',
        "bool(entry.changes))",
        "test_a_signal_that_failed_on_its_way_is_sent_again",
    ),
    case(
        "a change that the database has is not remembered for the way back",
        "account.py",
        "            entry = self.book.record(change)\n",
        "            entry = self.book.entry(signal_id)\n",
        "test_the_way_back_works_while_the_database_is_down_and_catches_up_later",
    ),
    case(
        "a repeated change is refused",
        "account.py",
        'if code not in (None, "duplicate_change"):',
        "if code is not None:",
        "test_in_persist_what_the_database_cannot_be_asked_is_raised_and_can_be_repeated",
    ),
    case(
        "what the database says replaces what is still to be written",
        "book.py",
        '        elif entry.standing == "pending":\n            return\n',
        "",
        "test_what_happened_in_memory_counts_when_the_database_is_loaded",
    ),
    case(
        "a signal does not expire in memory",
        "lifecycle.py",
        'return "expired"',
        "return reported",
        "test_a_signal_expires_by_itself_and_is_told_once",
    ),
    case(
        "a signal that is not in the database yet makes room",
        "book.py",
        '    "dual_write": ((True, "stored"), (True, "refused")),',
        '    "dual_write": ((True, "stored"), (True, "refused"), (True, "pending")),',
        "test_while_writing_behind_only_what_the_database_has_makes_room",
    ),
    case(
        "the way back does not look at the database",
        "account.py",
        'if mode == "persist" or wanted == "dual_write":',
        'if wanted == "persist":',
        "test_the_way_back_works_while_the_database_is_down_and_catches_up_later",
    ),
    case(
        "persist reads do not wait for what was published",
        "account.py",
        "            self._await(lambda: self.book.pending == 0)\n",
        "",
        "test_in_persist_a_read_waits_for_what_was_published_before",
    ),
    case(
        "persist begins before memory is written",
        "account.py",
        "        if self._has_caught_up():\n",
        "        if True:\n",
        "test_persist_begins_when_memory_is_written_and_until_then_memory_answers",
    ),
    case(
        "a change that is sent again after a lost answer counts as refused",
        "account.py",
        'item.index: item.code for item in verdict.items if item.code != "duplicate_change"',
        "item.index: item.code for item in verdict.items",
        "test_a_change_whose_answer_was_lost_is_written_once_and_is_no_difference",
    ),
    case(
        "a missing signal is not reported",
        "comparison.py",
        "                difference = missing_in_database(account_id, entry)\n",
        "                continue\n",
        "test_every_difference_that_is_planted_in_the_database_is_reported_by_its_reason",
    ),
    case(
        "outcomes are not compared",
        "differences.py",
        "    found += [difference(",
        "    [difference(",
        "test_every_difference_that_is_planted_in_the_database_is_reported_by_its_reason",
    ),
    case(
        "a difference is counted each time it is found",
        "differences.py",
        "if difference.kind not in kinds]",
        "if True]",
        "test_every_difference_that_is_planted_in_the_database_is_reported_by_its_reason",
    ),
    case(
        "what is on its way counts as missing",
        "comparison.py",
        "settled = account.book.settled()",
        "settled = account.book._entries",
        "test_what_is_on_its_way_or_about_to_expire_is_no_difference",
    ),
    case(
        "differences are kept without bound",
        "differences.py",
        "room = self._max_differences - self._count",
        "room = len(differences)",
        "test_differences_are_bounded_and_those_beyond_are_counted",
    ),
    case(
        "the mode changes while the database is asked",
        "account.py",
        "            self.changed.wait_for(lambda: self._asking == 0)\n",
        "",
        "test_the_mode_does_not_change_under_an_operation_that_asks_the_database",
    ),
    case(
        "a change is written with the time of its writing",
        "manager.py",
        '        rest.setdefault("occurred_at", self._clock())\n',
        "",
        "test_a_change_keeps_the_time_at_which_it_was_made",
    ),
    case(
        "writing behind begins when the database has answered",
        "account.py",
        'wait=mode == "persist" or len(self.book) == 0',
        "wait=True",
        "test_writing_behind_begins_without_waiting_for_a_database_that_hangs",
    ),
    PlantedBug(
        "a password in a field is logged",
        "logs.py",
        "    if _SECRET_NAME.search(name):\n        return _HIDDEN\n",
        "",
        "tests/client/test_logs.py::test_no_secret_is_logged_as_a_field_or_in_a_text",
    ),
    PlantedBug(
        "requests carry no correlation id of their work",
        "logs.py",
        "_correlation_id.get() or str(uuid4())",
        "str(uuid4())",
        "tests/client/test_logs.py::test_every_request_carries_the_correlation_id_of_its_work",
    ),
    PlantedBug(
        "a value at the bound of a bucket is counted above it",
        "metrics.py",
        "buckets = [bisect_left(self._bounds, value) for value in seconds]",
        "buckets = [bisect_left(self._bounds, value * 1.1) for value in seconds]",
        "tests/client/test_metrics.py"
        "::test_a_histogram_counts_every_value_in_all_buckets_that_bound_it",
    ),
    PlantedBug(
        "a gauge of the producer is not told",
        "metrics.py",
        '    "on_disk": "Pending signals that are on disk only",\n',
        "",
        "tests/client/test_metrics.py::test_every_count_of_a_snapshot_is_told",
    ),
]


if __name__ == "__main__":
    plant(BUGS)
