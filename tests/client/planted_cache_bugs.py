"""Bugs that were planted in the cache, and the test that catches each.

`python -m tests.client.planted_cache_bugs [WORD ...]` plants them as `tests.client.planted_bugs`
does.
"""

from __future__ import annotations

from tests.client.planted_bugs import PlantedBug, plant

CACHE = "tests/client/test_cache.py"
LAWS = "tests/client/test_cache_laws.py"


def case(name: str, file: str, right: str, wrong: str, test: str) -> PlantedBug:
    return PlantedBug(name, f"cache/{file}", right, wrong, f"{CACHE}::{test}")


def law(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = f"{LAWS}::test_an_answer_is_what_the_database_answers_at_its_seq"
    return PlantedBug(name, f"cache/{file}", right, wrong, test)


BUGS = [
    law(
        "what is followed while a query is under way is not merged into its answer",
        "memory.py",
        "            self._loading.add(entry)\n            self._put_in_index(entry)\n",
        "            self._loading.add(entry)\n",
    ),
    law(
        "a signal that is later by time than by seq is put at the end",
        "entry.py",
        "self._signals.insert(place, signal)",
        "self._signals.append(signal)",
    ),
    law(
        "an answer grows beyond what was asked for",
        "entry.py",
        "            self.bytes -= weigh(self._signals.pop(0)) + _PLACE_BYTES",
        "            pass",
    ),
    law(
        "a cut answer passes for complete",
        "entry.py",
        "self.cut = self.cut or full",
        "self.cut = self.cut",
    ),
    law(
        "a span of time stands still",
        "entry.py",
        "return self._answer[: len(self._answer) - too_old], True",
        "return self._answer, True",
    ),
    law(
        "an answer of before the cut is given although following was lost",
        "memory.py",
        "            if age > max_stale:\n                return Lack.STALE\n",
        "",
    ),
    law(
        "following passes for live whatever the subscriber says",
        "async_cache.py",
        "if subscriber.is_up_to_date:",
        "if subscriber.state is not SubscriptionState.CLOSED:",
    ),
    case(
        "a subscriber that is a moment behind confirms what is in memory",
        "async_cache.py",
        "if subscriber.is_up_to_date:",
        "if subscriber.state is SubscriptionState.LIVE:",
        "test_a_subscriber_that_is_a_moment_behind_confirms_no_answer",
    ),
    law(
        "an own write is forgotten",
        "memory.py",
        "if seq < at_least or seq < entry.floor:",
        "if seq < at_least:",
    ),
    case(
        "a duplicate changes nothing",
        "memory.py",
        "                    self._drop(entry)\n                else:",
        "                    pass\n                else:",
        "test_a_duplicate_may_be_new_to_this_process",
    ),
    law(
        "statuses are never asked for",
        "memory.py",
        "if status_age > max_stale or",
        "if",
    ),
    case(
        "a new beginning keeps the old answers",
        "memory.py",
        "            self._forget()\n            self._seq = self._stored = seq\n",
        "            self._seq = self._stored = seq\n",
        "test_what_was_loaded_before_a_new_beginning_is_dropped",
    ),
    law(
        "the columns of a filter are not looked at when something is followed",
        "memory.py",
        "            if entry.question.matches(signal):\n                before",
        "            if True:\n                before",
    ),
    case(
        "a query that began before an own write answers who asks after it",
        "memory.py",
        "            if page.last_seq < entry.floor:\n                return None\n",
        "",
        "test_an_own_write_is_seen_by_who_joins_a_query_that_is_older",
    ),
    case(
        "a query that a new beginning overtook is kept",
        "memory.py",
        "        for entry in self._loading:\n            entry.events = None\n",
        "        for entry in self._loading:\n",
        "test_a_query_that_a_new_beginning_overtakes_is_answered_and_not_kept",
    ),
    case(
        "a gap is followed over",
        "memory.py",
        "if self._seq is None or signal.seq != self._seq + 1:",
        "if self._seq is None:",
        "test_a_signal_that_does_not_follow_the_last_one_begins_everything_anew",
    ),
    case(
        "an event that overtakes its signal is dropped",
        "memory.py",
        "if self._seq is None or event.signal_seq > self._seq:",
        "if self._seq is None:",
        "test_an_event_that_overtakes_its_signal_is_kept_for_it",
    ),
    case(
        "an event during a query is dropped",
        "memory.py",
        "                entry.events.append(event)\n",
        "                pass\n",
        "test_an_event_during_a_query_is_not_lost",
    ),
    case(
        "one page of events passes for all of them",
        "memory.py",
        "            if self._event_seq < last_seq:\n                return False\n",
        "",
        "test_statuses_are_asked_for_when_they_were_not_for_too_long",
    ),
    case(
        "own changes of a status are forgotten",
        "memory.py",
        " or self._events_wanted > (self._event_seq or 0)",
        "",
        "test_own_changes_of_a_status_are_seen",
    ),
    case(
        "the clock expires nothing",
        "entry.py",
        " or (self._expires_at is not None and self._expires_at <= now)",
        "",
        "test_a_signal_expires_by_the_clock",
    ),
    case(
        "what was read last makes room first",
        "memory.py",
        "            self._entries.move_to_end(question)\n",
        "",
        "test_what_was_read_longest_ago_makes_room",
    ),
    case(
        "answers that nobody reads are merged into for ever",
        "memory.py",
        "if entry.unread > _MOST_UNREAD and entry.kept:",
        "if False:",
        "test_an_answer_that_nobody_reads_is_not_kept_in_step_for_ever",
    ),
    case(
        "early events pile up",
        "memory.py",
        "            if len(self._early) > _MOST_EVENTS:\n                self._lose()\n",
        "",
        "test_more_early_events_than_are_kept_begin_everything_anew",
    ),
    case(
        "merging makes no room",
        "memory.py",
        "            self._stored = max(self._stored, self._seq or 0)\n"
        "            self._make_room()\n",
        "            self._stored = max(self._stored, self._seq or 0)\n",
        "test_an_answer_that_grows_makes_room_too",
    ),
    case(
        "an answer that can never be kept drives out the others",
        "memory.py",
        "        if entry.bytes > self._max_bytes:\n            return\n",
        "",
        "test_an_answer_that_is_too_large_is_given_and_leaves_the_others_where_they_are",
    ),
    case(
        "ids and numbers weigh nothing",
        "weight.py",
        "        return getsizeof(value) + getsizeof(value.int)\n",
        "        return 0\n",
        "test_bytes_are_what_the_signals_take",
    ),
    case(
        "a signal whose status changed keeps its old weight",
        "entry.py",
        "            self.bytes += weigh(after) - weigh(before)\n",
        "",
        "test_bytes_go_up_and_down_with_what_is_kept",
    ),
    case(
        "the TTL counts from the last read",
        "memory.py",
        "            self._hits += 1\n",
        "            self._hits += 1\n            entry.loaded_at = clock\n",
        "test_no_answer_is_kept_longer_than_the_ttl",
    ),
    case(
        "each reader makes a query of its own",
        "flights.py",
        "if flight is None or flight.task.done():",
        "if True:",
        "test_readers_of_one_question_share_one_query",
    ),
    case(
        "who is cancelled takes the query away from the others",
        "flights.py",
        "await asyncio.shield(flight.task)",
        "await flight.task",
        "test_a_reader_that_is_cancelled_leaves_the_others_waiting",
    ),
    case(
        "a query that nobody waits for goes on",
        "flights.py",
        "if flight.waiting == 0 or flight.task.done():",
        "if flight.task.done():",
        "test_a_query_that_nobody_waits_for_any_more_is_cancelled_and_begun_anew",
    ),
    case(
        "closing leaves a cancelled wait behind",
        "flights.py",
        "if self._closed and flight.task.cancelled():",
        "if False:",
        "test_closing_ends_every_wait",
    ),
    case(
        "what is written before the account is known is forgotten",
        "async_cache.py",
        "            self._memory.stored(done.signal, None)\n",
        "            pass\n",
        "test_an_own_write_is_seen_while_nothing_is_followed",
    ),
    case(
        "the reports of another account raise the floor",
        "async_cache.py",
        " and done.account_id in (None, self._account_id)",
        "",
        "test_what_was_not_stored_or_is_of_another_account_changes_nothing",
    ),
    case(
        "a cache that is no longer followed stays so",
        "async_cache.py",
        "            attempt += 1\n            await asyncio.sleep(random",
        "            attempt += 1\n            await asyncio.sleep(1e9 * random",
        "test_a_subscriber_that_ends_is_replaced_and_what_was_kept_is_dropped",
    ),
]


if __name__ == "__main__":
    plant(BUGS)
