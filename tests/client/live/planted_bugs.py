"""Bugs that were planted in the subscriber, and the test that catches each.

`python -m tests.client.live.planted_bugs [WORD ...]` plants them as `tests.client.planted_bugs`
does. Those of the channel and of the callbacks need a stack: name a running one in
SIGNAL_TEST_STACK, or each starts its own.
"""

from __future__ import annotations

from dataclasses import replace

from tests.client.planted_bugs import PlantedBug, plant

HERE = "tests/client/live"
ON_STACK = "tests/client/test_subscriber_live.py"
CALLBACK = "test_on_signal_may_raise_and_block_and_gets_every_signal_once_in_order"


def any_mix(name: str, right: str, wrong: str) -> PlantedBug:
    test = "tests/client/test_subscription_state.py"
    test += "::test_any_mix_of_events_hands_out_each_signal_once_in_order"
    return PlantedBug(name, "coverage.py", right, wrong, test)


def any_core(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = f"{HERE}/test_core_scenarios.py::test_a_scenario_of_the_machine"
    return PlantedBug(name, file, right, wrong, test)


def any_schedule(name: str, right: str, wrong: str) -> PlantedBug:
    test = f"{HERE}/test_fault_schedules.py"
    test += "::test_any_schedule_of_faults_is_noticed_in_time_and_heals"
    return PlantedBug(name, "strand.py", right, wrong, test)


def any_live(name: str, right: str, wrong: str) -> PlantedBug:
    test = f"{HERE}/test_live_scenarios.py::test_scenarios_of_one_topic_each_side_by_side"
    return PlantedBug(name, "channel.py", right, wrong, test)


def any_live_event(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    return replace(any_live(name, right, wrong), file=file)


BUGS = [
    any_core(
        "what comes ahead of its turn is not kept",
        "coverage.py",
        "        if self._covered is None or message.first_seq > self._covered + 1:",
        "        if self._covered is None:",
    ),
    any_mix(
        "a repeated broadcast is handed out again",
        "            if self._covered is not None and item.seq <= self._covered:\n",
        "            if False:\n",
    ),
    any_core(
        "what does not fit into the buffer is dropped",
        "coverage.py",
        "                    return False\n",
        "                    self._covered = item.seq\n                    continue\n",
    ),
    any_core(
        "a page with more to come counts as complete",
        "coverage.py",
        "            if answer.is_complete:\n",
        "            if True:\n",
    ),
    any_core(
        "the cursor passes what waits to be taken",
        "coverage.py",
        "            return self._ready[0][0].seq - 1\n",
        "            return self._covered\n",
    ),
    any_core(
        "an answer from before the join settles the join",
        "coverage.py",
        "self._settled = max(self._settled, query.doubt)",
        "self._settled = self._doubt",
    ),
    any_core(
        "a broadcast that lacks a signal is used across the gap",
        "coverage.py",
        "follows = self._covered is not None and item.seq <= self._covered + 1",
        "follows = True",
    ),
    any_core(
        "what a check finds is not fetched",
        "subscription.py",
        "        self._signals.coverage.known(last_seq)\n",
        "",
    ),
    any_schedule(
        "no broadcast is expected of what a check has shown",
        "            self._unpushed = seq, until\n",
        "            pass\n",
    ),
    any_core(
        "a channel that brings nothing is never left",
        "subscription.py",
        "return may_rejoin and self._now >= self._rejoin_at",
        "return False",
    ),
    any_core(
        "a channel is left before a late broadcast can prove it",
        "subscription.py",
        "max(REJOIN_SECONDS, proof)",
        "REJOIN_SECONDS",
    ),
    any_core(
        "a channel of which the server never says that it follows is kept",
        "subscription.py",
        "return self._missing or not self._replicating",
        "return self._missing",
    ),
    any_core(
        "the clocks are compared once",
        "subscription.py",
        "return min(proof_at, clock_at, self._due_at,",
        "return min(proof_at, self._due_at,",
    ),
    any_core(
        "broadcasts that are all late keep it live",
        "subscription.py",
        "        elif age < GRACE_SECONDS and not strand.missing",
        "        elif not strand.missing",
    ),
    any_core(
        "nobody knows the database's time, and broadcasts are taken for punctual",
        "subscription.py",
        "        if self._database_time is None:\n            return math.inf\n",
        "        if self._database_time is None:\n            return 0.0\n",
    ),
    any_core(
        "the service cannot say how often it is asked",
        "subscription.py",
        "            self._check_interval = check_interval\n",
        "            pass\n",
    ),
    any_core(
        "the service changes the interval that the caller has chosen",
        "subscription.py",
        "if check_interval is not None and not self._keeps_interval:",
        "if check_interval is not None:",
    ),
    any_core(
        "a moment behind counts as up to date",
        "subscription.py",
        "return self._state is SubscriptionState.LIVE and not self._is_behind",
        "return self._state is SubscriptionState.LIVE",
    ),
    any_core(
        "an event comes before its signal",
        "subscription.py",
        "        if event is None or (self.cursor or 0) < event.last_signal_seq:\n",
        "        if event is None:\n",
    ),
    any_core(
        "an expiry comes after the first of its signals",
        "advance.py",
        "return max(last for _, last in self.expired_seqs) if",
        "return self.signal_seq if",
    ),
    any_core(
        "nobody fetches the signal of an event",
        "subscription.py",
        "            self._signals.coverage.known(event.last_signal_seq)\n",
        "            pass\n",
    ),
    any_core(
        "an event that does not say enough is handed out",
        "subscription.py",
        "if events is not None and any(self._matches_event(event) is None for event in events):",
        "if False:",
    ),
    any_core(
        "events that are missing are not looked for",
        "subscription.py",
        "            self._checked(self._events, last_event_seq, asked_at)\n",
        "            self._events.proven(asked_at)\n",
    ),
    any_core(
        "a broadcast of signals proves that events are told",
        "subscription.py",
        "        strand.broadcast(message, joined=self._joined)\n",
        "        strand.broadcast(message, joined=self._joined)\n"
        "        if self._events is not None:\n            self._events.missing = False\n",
    ),
    any_live_event(
        "an event is told to a filter that does not want its signal",
        "event_filter.py",
        "            return self.wanted.matches(event.signal)\n",
        "            return True\n",
    ),
    any_live_event(
        "a restart forgets how far events have come",
        "async_subscriber.py",
        '            after_event_seq=_seq(options.get("after_event_seq")),\n',
        "",
    ),
    any_core(
        "a broadcast that is too late proves the channel",
        "strand.py",
        "        if self._unpushed is not None and self._unpushed[0] <= self._pushed:",
        "        if True:",
    ),
    any_core(
        "broadcasts that are put together count as missing",
        "subscription.py",
        "return GRACE_SECONDS + (self._interval or 0.0)",
        "return GRACE_SECONDS",
    ),
    any_core(
        "it is live before the server follows the database",
        "subscription.py",
        "        if not self._replicating:\n            return SubscriptionState",
        "        if False:\n            return SubscriptionState",
    ),
    any_core(
        "checks without an answer go unnoticed",
        "subscription.py",
        "        if self._now >= self._unreachable_at:",
        "        if False:",
    ),
    any_core(
        "the signals of other traders are missed on a trader's channel",
        "subscription.py",
        "shown = newest if self._own_channel else page.last_seq",
        "shown = page.last_seq",
    ),
    any_core(
        "a broadcast is expected of what was stored before the join",
        "strand.py",
        "        self._pushed = max(self._pushed, last_seq)\n",
        "",
    ),
    any_core(
        "a steady flow is never live",
        "strand.py",
        "        elif self.behind is None or self.coverage.has(self.behind[0]):",
        "        elif self.behind is None:",
    ),
    any_core(
        "a broadcast proves that its signals can be fetched",
        "subscription.py",
        "elif age < GRACE_SECONDS and not strand.missing and not strand.coverage.is_behind:",
        "elif age < GRACE_SECONDS and not strand.missing:",
    ),
    any_core(
        "what proves the signals proves the events",
        "subscription.py",
        "return min(strand.proven_at for strand in self._strands)",
        "return max(strand.proven_at for strand in self._strands)",
    ),
    any_core(
        "a page starts the time of a broadcast",
        "subscription.py",
        "            if self._own_channel and self._now < self._checked_at + GRACE_SECONDS:",
        "            if True:",
    ),
    any_core(
        "a broadcast from the future counts as punctual",
        "subscription.py",
        "        if age < -GRACE_SECONDS:\n",
        "        if False:\n",
    ),
    any_core(
        "an answer proves the moment at which it comes",
        "strand.py",
        "        self.proven_at = max(self.proven_at, at)\n",
        "        self.proven_at = max(self.proven_at, at + 1.5)\n",
    ),
    any_core(
        "what was asked before the join expects a broadcast",
        "strand.py",
        "        if self._answerable_at is None or asked_at < self._answerable_at:",
        "        if self._answerable_at is None:",
    ),
    any_core(
        "a standstill of the process counts as silence of the server",
        "strand.py",
        "        if now > self._unpushed[1] + STANDSTILL_SECONDS and not self._waited_again:",
        "        if False:",
    ),
    any_core(
        "an event whose signal is gone belongs to every filter",
        "subscription.py",
        "lambda event: matches_event(event) is True,",
        "lambda event: matches_event(event) is not False,",
    ),
    any_core(
        "a closed subscription closes again for another reason",
        "subscription.py",
        "self._closed = self._closed or reason",
        "self._closed = reason",
    ),
    PlantedBug(
        "a limit of the project looks like a lost connection",
        "refusals.py",
        "    if any(sign in said for sign in _RATE):",
        "    if False:",
        f"{HERE}/test_refusals.py::test_a_refusal_has_its_reason",
    ),
    any_live(
        "nobody looks whether heartbeats are answered",
        "            elif now >= self._heard_at + self._patience:",
        "            elif False:",
    ),
    any_live(
        "a lost channel is not told before its connection is closed",
        "            self._listener.on_lost(loss)\n",
        "",
    ),
    PlantedBug(
        "a lost connection goes on telling",
        "channel.py",
        "            if self._lost.done():\n                # What",
        "            if False:\n                # What",
        "tests/client/test_channel.py::test_a_lost_connection_tells_nothing_more",
    ),
    PlantedBug(
        "a callback on the loop waits for itself when it closes",
        "subscriber.py",
        "        if self._subscriber.is_callback() or self._loop.is_current():",
        "        if self._subscriber.is_callback():",
        f"{ON_STACK}::test_a_callback_may_close_its_own_subscriber_and_the_rest_stays_behind_the_cursor",
    ),
    PlantedBug(
        "a new token stays with the client",
        "channel.py",
        "                await client.set_auth(current)\n",
        "",
        f"{ON_STACK}::test_a_subscriber_outlives_its_tokens",
    ),
    PlantedBug(
        "a refused token is used again",
        "channel.py",
        "self._token_was_refused = refuses_token(loss.said)",
        "self._token_was_refused = False",
        f"{ON_STACK}::test_a_channel_that_the_server_closes_is_joined_again_with_another_token",
    ),
    PlantedBug(
        "a callback that raises ends its thread",
        "user_callback.py",
        "                    # Even SystemExit: nothing a callback does may end the thread.\n",
        "                    raise\n",
        f"{ON_STACK}::{CALLBACK}",
    ),
    PlantedBug(
        "the cursor passes what a callback has in hand",
        "async_subscriber.py",
        "        self._in_hand = self._subscription.cursor\n",
        "",
        f"{ON_STACK}::{CALLBACK}",
    ),
]


if __name__ == "__main__":
    plant(BUGS)
