"""Bugs that were planted in the producer, and the test that catches each.

`python -m tests.client.planted_bugs [WORD ...]` plants them (those with all words in their name)
one by one in a copy of the client and runs the named test, which must fail. A test keeps this table
true to the source.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "python_client" / "signal_persistence"
ENGINE = "tests/client/test_producer_engine.py"
SPOOL = "tests/client/test_producer_spool.py"
ADOPTION = "tests/client/test_adoption.py"
BREAKER = "tests/client/test_breaker.py"
BATCH = "tests/client/test_batch.py"
TRANSPORT = "tests/client/test_transport.py"
CREDENTIALS = "tests/client/test_credentials.py"
IN_DOUBT = "test_a_failure_after_the_request_may_have_left_is_in_doubt_and_not_repeated"


@dataclass(frozen=True)
class PlantedBug:
    """In `file`, `right` becomes `wrong`; `test` must then fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


def any_faults(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = f"{ENGINE}::test_any_faults_and_then_success_store_and_report_every_signal_once_in_order"
    return PlantedBug(name, file, right, wrong, test)


def any_crash(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = f"{SPOOL}::test_any_faults_crashes_and_restarts_store_every_signal_once_in_order"
    return PlantedBug(name, file, right, wrong, test)


def any_refusal(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    test = f"{SPOOL}::test_any_script_reports_every_signal_once_in_order_and_keeps_what_was_refused"
    return PlantedBug(name, file, right, wrong, test)


def adopted_in_time(name: str, file: str, right: str, wrong: str) -> PlantedBug:
    name_of_test = "test_a_process_that_dies_beside_another_is_adopted_within_the_interval"
    return PlantedBug(name, file, right, wrong, f"{ADOPTION}::{name_of_test}")


BUGS = [
    any_faults(
        "a retry gets a new request_id",
        "sender.py",
        "        batch.attempts += 1\n",
        "        batch.attempts += 1\n        batch.request_id = sending.new_id()\n",
    ),
    any_faults(
        "a batch is dropped after a lost answer",
        "sender.py",
        "        if step is Next.RENEW:\n",
        "        if error.in_doubt:\n            self.lane.under_way = None\n"
        "        if step is Next.RENEW:\n",
    ),
    any_faults(
        "a batch is taken from the back of the lane",
        "batch.py",
        "record = self.waiting.popleft()",
        "record = self.waiting.pop()",
    ),
    any_faults(
        "an unreadable answer counts as success",
        "verdict.py",
        "if response.status != 200 or verdict is None or not verdict.fits(batch):",
        "if verdict is None:\n        count = len(batch.records)\n"
        "        return Verdict(batch.request_id, count, 0, 0, 1, 1, [])\n"
        "    if response.status != 200:",
    ),
    any_faults(
        "a report is not counted",
        "ledger.py",
        "self._by_status.update([fate.status for fate in fates])",
        "self._by_status.update([fate.status for fate in fates[1:]])",
    ),
    any_faults(
        "request_ids do not carry the time",
        "batch.py",
        "milliseconds = int(unix_seconds * 1000)",
        "milliseconds = hash(random_bits)",
    ),
    PlantedBug(
        "the linger starts anew with every signal (an idle timer)",
        "batch.py",
        "return self.waiting[0].accepted_at + self.policy.linger",
        "return self.waiting[-1].accepted_at + self.policy.linger",
        f"{ENGINE}::test_the_first_signal_of_a_batch_waits_for_the_linger_and_no_longer",
    ),
    PlantedBug(
        "one request under way for all accounts together",
        "engine.py",
        "most_requests=settings.max_in_flight_requests",
        "most_requests=1",
        f"{ENGINE}::test_two_accounts_are_under_way_at_once_and_one_account_never_twice",
    ),
    PlantedBug(
        "Retry-After is ignored",
        "sender.py",
        'await self._pause(getattr(error, "retry_after", None))',
        "await self._pause(None)",
        f"{ENGINE}::test_retry_after_is_the_least_pause",
    ),
    PlantedBug(
        "Retry-After brings everybody back at the same moment",
        "retry.py",
        "retry_after + self.randomness() * self.first",
        "retry_after",
        "tests/client/test_retry.py"
        "::test_retry_after_is_a_floor_and_does_not_bring_everybody_back_at_once",
    ),
    PlantedBug(
        "a refused token fails the batch",
        "retry.py",
        "return Next.RETRY if renewed else Next.RENEW",
        "return Next.GIVE_UP if renewed else Next.RENEW",
        f"{ENGINE}::test_a_refused_token_is_renewed_once_and_then_waits_without_losing_the_batch",
    ),
    PlantedBug(
        "the halves of a split batch change places",
        "batch.py",
        "self.resend.extendleft(reversed(rest))",
        "self.resend.extendleft(rest)",
        f"{ENGINE}::test_a_batch_that_is_too_large_is_halved_in_order_under_new_ids",
    ),
    PlantedBug(
        "a batch is larger than its limit",
        "batch.py",
        "if size > self.policy.max_bytes:",
        "if size > self.policy.max_bytes + 1:",
        f"{BATCH}::test_batches_joined_are_the_published_signals_and_each_keeps_the_limits",
    ),
    PlantedBug(
        "a full batch does not wake its sender",
        "batch.py",
        "return len(self.waiting) == 1 or (self._is_full() and not self._is_full(1, size))",
        "return len(self.waiting) == 1",
        f"{ENGINE}::test_a_full_batch_does_not_linger",
    ),
    PlantedBug(
        "a signal expires with the oldest of its batch",
        "sender.py",
        "        if expired:\n            fate",
        "        if expired:\n            expired = len(batch.records)\n            fate",
        f"{ENGINE}::test_each_signal_has_its_whole_delivery_timeout_and_is_then_given_up",
    ),
    PlantedBug(
        "a cancelled request is not in doubt",
        "sender.py",
        "        batch.in_doubt = True\n",
        "",
        f"{ENGINE}::test_close_is_bounded_in_every_state_and_names_what_it_gave_up",
    ),
    PlantedBug(
        "close() waits for the end of a pause",
        "sender.py",
        "        self._hurry.set()\n",
        "        pass\n",
        f"{ENGINE}::test_close_tries_once_more_without_waiting_for_the_pause_to_end",
    ),
    PlantedBug(
        "a callback that raises ends the callbacks",
        "callbacks.py",
        "except (Exception, SystemExit):",
        "except ArithmeticError:",
        f"{ENGINE}::test_callbacks_that_raise_or_hang_do_not_stop_the_sending",
    ),
    PlantedBug(
        "signals whose callback waits take no room in the buffer",
        "ledger.py",
        "held = self._unfinished + callbacks_waiting",
        "held = self._unfinished",
        f"{ENGINE}::test_slow_callbacks_push_back_on_publish_instead_of_losing_reports",
    ),
    PlantedBug(
        "the buffer is not bounded",
        "ledger.py",
        "if not in_memory and not self._may_stay_on_disk(record):",
        "if False:",
        f"{ENGINE}::test_the_buffer_is_bounded_by_messages_and_says_why_it_is_full",
    ),
    PlantedBug(
        "a forked child goes on with its parent's engine",
        "producer.py",
        "            self._in_parent = True\n",
        "            pass\n",
        "tests/client/test_producer.py"
        "::test_a_forked_child_starts_afresh_and_leaves_the_parents_signals_to_the_parent",
    ),
    PlantedBug(
        "the threads of Python end before what is left at exit is sent",
        "loop_thread.py",
        '        self._loop.set_default_executor(_DaemonThreads(f"{name}-worker"))\n',
        "",
        "tests/client/test_producer.py"
        "::test_what_an_unclosed_producer_has_at_exit_is_sent_whatever_that_needs_a_thread_for",
    ),
    any_crash(
        "a batch goes out before its request_id is on disk",
        "engine.py",
        "                await self._write(lambda: self._outbox.begin(lane, batch))\n",
        "                pass\n",
    ),
    any_crash(
        "a batch of a former process gets a new request_id",
        "outbox.py",
        "Batch(begun_batch.request_id, self._records",
        "Batch(uuid4(), self._records",
    ),
    any_crash(
        "what is on disk only is forgotten at a restart",
        "outbox.py",
        "lanes[0].on_disk = self._slot.recovered.signals - in_batches",
        "lanes[0].on_disk = 0",
    ),
    any_crash(
        "a signal overtakes those that wait on disk",
        "ledger.py",
        "                not lane.on_disk\n                and len(",
        "                len(",
    ),
    any_crash(
        "the log lets go of signals that are not stored",
        "engine.py",
        "self._outbox.finish_through(self._ledger.acked_fsn())",
        "self._outbox.finish_through(self._outbox.published_fsn)",
    ),
    PlantedBug(
        "an orphan is adopted twice",
        "spool/slots.py",
        '("writer.lock", "sender.lock")[: 1 + as_sender]',
        '("writer.lock", "sender.lock")[: 1 + as_sender if described != _orphaned else 0]',
        f"{ADOPTION}::test_of_two_that_look_at_the_same_time_one_adopts",
    ),
    PlantedBug(
        "a producer that is closed adopts what it left itself",
        "outbox.py",
        "self._settings, other_than=self._slot.name)",
        "self._settings)",
        f"{ADOPTION}::test_a_producer_that_is_closed_while_it_looks_leaves_its_slot_to_the_next",
    ),
    PlantedBug(
        "the open batches of a dead process are forgotten",
        "outbox.py",
        "for begun_batch in self._journal.open_batches:",
        "for begun_batch in self._journal.open_batches[:0]:",
        f"{ADOPTION}::test_what_three_killed_traders_left_is_delivered_once_and_in_order_of_each",
    ),
    adopted_in_time(
        "an orphan that was delivered is counted twice",
        "adoption.py",
        "self._adopted = delivered + _finished_counts(orphan.stats()), left",
        "self._adopted = delivered + _finished_counts(orphan.stats()), orphans",
    ),
    adopted_in_time(
        "an orphan that was delivered is counted no more",
        "adoption.py",
        "self._adopted = delivered + _finished_counts(orphan.stats()), left",
        "self._adopted = delivered, left",
    ),
    adopted_in_time(
        "orphans are looked for at the start only",
        "adoption.py",
        "await asyncio.sleep(self._adopt_interval * jitter)",
        "await asyncio.sleep(1e6)",
    ),
    adopted_in_time(
        "an orphan that was delivered is not let go",
        "adoption.py",
        "        await orphan.end()\n",
        "        pass\n",
    ),
    PlantedBug(
        "the slot of accounts that are not served is adopted",
        "spool/slots.py",
        "return slot_file if slot_file and set(slot_file.lanes) <= set(lanes) else None",
        "return slot_file",
        f"{ADOPTION}::test_an_orphan_of_accounts_that_are_not_served_is_left_alone",
    ),
    PlantedBug(
        "an adopted slot gets lanes of whoever adopts it",
        "spool/slots.py",
        "settings, files, _orphaned, as_sender=True)",
        "settings, files, _with_lanes, as_sender=True)",
        "tests/client/spool/test_slots.py"
        "::test_an_adopted_slot_gets_no_lanes_that_would_keep_others_from_it",
    ),
    PlantedBug(
        "close() keeps the slots that it adopted",
        "adoption.py",
        "await asyncio.gather(*(orphan.end() for orphan in orphans))",
        "assert orphans is not None",
        f"{ADOPTION}::test_close_leaves_what_is_not_delivered_to_the_next",
    ),
    PlantedBug(
        "a slot that is opened while the producer closes is kept",
        "adoption.py",
        "            if not self._ledger.closed:\n",
        "            if True:\n",
        f"{ADOPTION}::test_a_slot_that_is_opened_while_the_producer_closes_is_let_go",
    ),
    PlantedBug(
        "an orphan whose account cannot be sent holds up all others",
        "adoption.py",
        "_AT_ONCE: Final = 4",
        "_AT_ONCE: Final = 1",
        f"{ADOPTION}"
        "::test_many_orphans_are_delivered_few_at_a_time_and_one_that_cannot_be_holds_up_no_other",
    ),
    PlantedBug(
        "an orphan whose delivery fails takes all others with it",
        "adoption.py",
        "        except Exception:\n            # A bug of ours must not stop the others",
        "        except ZeroDivisionError:\n            # A bug of ours must not stop the others",
        f"{ADOPTION}::test_a_delivery_that_fails_stops_no_other_and_is_gone_on_with",
    ),
    PlantedBug(
        "what a delivery that failed left is counted twice",
        "adoption.py",
        "delivered + _finished_counts(orphan.stats()), left",
        "delivered + _counts(orphan.stats()), left",
        f"{ADOPTION}::test_a_delivery_that_fails_stops_no_other_and_is_gone_on_with",
    ),
    PlantedBug(
        "an orphan that cannot be sent is not seen",
        "adoption.py",
        "for one in (own, *of_orphans) if",
        "for one in (own,) if",
        f"{ADOPTION}"
        "::test_many_orphans_are_delivered_few_at_a_time_and_one_that_cannot_be_holds_up_no_other",
    ),
    PlantedBug(
        "orphans do not share the request slots",
        "adoption.py",
        "        self._sending.slots = adopter._sending.slots\n",
        "        pass\n",
        f"{ADOPTION}"
        "::test_many_orphans_are_delivered_few_at_a_time_and_one_that_cannot_be_holds_up_no_other",
    ),
    PlantedBug(
        "a verdict that is written down a second time buries its signals again",
        "outbox.py",
        "        batch.buried.update(places)\n",
        "",
        f"{SPOOL}"
        "::test_a_verdict_that_cannot_be_written_down_at_once_leaves_one_dead_letter_of_each_signal",
    ),
    any_refusal(
        "a refused signal leaves no dead letter",
        "outbox.py",
        "        self._dead_letters.add(self._letters(lane, batch, fates, places))\n",
        "",
    ),
    any_refusal(
        "a dead letter carries the number of its neighbour",
        "outbox.py",
        "        fsn=record.fsn,\n",
        "        fsn=record.fsn + 1,\n",
    ),
    PlantedBug(
        "acked_fsn follows the fastest account",
        "ledger.py",
        "return min(open_fsns) - 1 if open_fsns",
        "return max(open_fsns) - 1 if open_fsns",
        f"{SPOOL}::test_numbers_go_on_after_a_restart_and_acked_follows_the_slowest_account",
    ),
    PlantedBug(
        "handles of signals on disk are forgotten",
        "ledger.py",
        "            self._deliveries[record.fsn] = record.delivery\n",
        "            pass\n",
        f"{SPOOL}::test_what_does_not_fit_into_memory_waits_on_disk_and_its_handles_still_answer",
    ),
    PlantedBug(
        "a whole backlog is read back at once",
        "ledger.py",
        "frames = self._outbox.read(lane.loaded, 2 * lane.most, _READ_BYTES)",
        "frames = self._outbox.read(lane.loaded, 10**9, 10**9)",
        f"{SPOOL}::test_a_backlog_is_read_back_in_pieces",
    ),
    PlantedBug(
        "one account takes the memory of all",
        "ledger.py",
        "self._lane_messages = max(1, max_messages // len(self.lanes))",
        "self._lane_messages = 10**9",
        f"{SPOOL}::test_what_does_not_fit_into_memory_waits_on_disk_and_its_handles_still_answer",
    ),
    PlantedBug(
        "a signal beyond the allowance of a minute is a reject",
        "verdict.py",
        'if item.code == "rate_limited")',
        'if item.code == "nothing")',
        f"{SPOOL}::test_signals_beyond_the_allowance_of_a_minute_are_sent_again_in_order",
    ),
    PlantedBug(
        "a signal in the spool is given up after some minutes",
        "settings.py",
        "return _MEMORY_TIMEOUT_SECONDS if self.spool_dir is None else math.inf",
        "return _MEMORY_TIMEOUT_SECONDS",
        f"{SPOOL}::test_a_refused_token_keeps_everything_for_as_long_as_it_takes",
    ),
    PlantedBug(
        "two calls are let through at once to probe",
        "breaker.py",
        'if self._state == "half_open" or self._clock() < self._probe_at:',
        "if self._clock() < self._probe_at:",
        f"{BREAKER}::test_of_fifty_threads_exactly_one_gets_the_probe",
    ),
    PlantedBug(
        "a probe that is cancelled is never followed by another",
        "breaker.py",
        "                self._open(0.0)\n",
        "                pass\n",
        f"{BREAKER}::test_a_probe_that_says_nothing_leaves_its_place_to_the_next_at_once",
    ),
    PlantedBug(
        "the word of an old call closes the breaker",
        "breaker.py",
        "            if ticket == self._ticket:\n                self._forget_failures()\n"
        '                if self._state == "half_open":',
        '            if self._state != "closed":\n                self._forget_failures()\n'
        '                if self._state != "closed":',
        f"{BREAKER}::test_a_slow_call_from_before_does_not_close_the_breaker",
    ),
    PlantedBug(
        "one account opens the breaker for all",
        "sender.py",
        "caller=self, at_least",
        "caller=object(), at_least",
        f"{ENGINE}::test_an_account_that_fails_does_not_hold_up_the_others",
    ),
    PlantedBug(
        "overload does not shrink what is sent at once",
        "pacing.py",
        "max(self._least_messages, self._messages / 2)",
        "self._messages",
        "tests/client/test_pacing.py::test_overload_halves_and_successes_bring_it_back_slowly",
    ),
    PlantedBug(
        "answers that waver shrink what is sent at once",
        "pacing.py",
        "max(self._best_messages, self._messages - self._step)",
        "max(self._least_messages, self._messages - self._step)",
        "tests/client/test_pacing.py::test_answers_that_waver_make_no_batch_smaller_than_the_first",
    ),
    PlantedBug(
        "a dropped connection counts as never made",
        "transport.py",
        "    aiohttp.ClientConnectorError,\n    aiohttp.ClientHttpProxyError,\n)",
        "    aiohttp.ClientConnectionError,\n    aiohttp.ClientHttpProxyError,\n)",
        f"{TRANSPORT}::{IN_DOUBT}",
    ),
    PlantedBug(
        "an answer that does not come counts as a connection that was not made",
        "transport.py",
        "            raise RequestTimeoutError from error",
        "            raise ConnectError from error",
        f"{TRANSPORT}::{IN_DOUBT}",
    ),
    PlantedBug(
        "a GET whose connection was lost is sent again unasked",
        "transport.py",
        "                middlewares=(_one_attempt,),\n",
        "",
        f"{TRANSPORT}::{IN_DOUBT}",
    ),
    PlantedBug(
        "a request that fails keeps its place among the connections",
        "transport.py",
        "            self._free.release()\n",
        "            pass\n",
        f"{TRANSPORT}::test_a_connection_that_never_becomes_free_was_not_sent",
    ),
    PlantedBug(
        "a forked child ends the connections of its parent",
        "transport.py",
        "connector=_Connector(",
        "connector=aiohttp.TCPConnector(",
        f"{TRANSPORT}"
        "::test_a_forked_child_that_drops_its_copy_leaves_the_connections_to_its_parent",
    ),
    PlantedBug(
        "a redirect is followed",
        "transport.py",
        "                allow_redirects=False,\n",
        "",
        f"{TRANSPORT}::test_an_empty_body_a_packed_answer_and_a_redirect_are_taken_as_they_are",
    ),
    PlantedBug(
        "the proxy of the environment is ignored",
        "transport.py",
        "                proxy=self._proxy,\n",
        "",
        f"{TRANSPORT}::test_a_request_goes_through_the_proxy_of_the_environment",
    ),
    PlantedBug(
        "a page that says 404 is final for a query",
        "transport.py",
        "if self.status == 404 and foreign:",
        "if False:",
        f"{TRANSPORT}::test_a_404_that_the_service_did_not_write_may_pass",
    ),
    PlantedBug(
        "a page of somebody else gives up the batch",
        "retry.py",
        "if not isinstance(error, ApiError) or error.foreign:",
        "if not isinstance(error, ApiError):",
        f"{ENGINE}::test_a_refusal_that_the_service_did_not_write_does_not_give_up_the_batch",
    ),
    PlantedBug(
        "any code counts as the service's own",
        "transport.py",
        "foreign = code not in CONTRACT.errors",
        "foreign = code is None",
        f"{ENGINE}::test_a_refusal_that_the_service_did_not_write_does_not_give_up_the_batch",
    ),
    PlantedBug(
        "an account that is refused for ever is not seen once another is stored",
        "sender.py",
        "        self._sending.failing.pop(self, None)\n\n",
        "        self._sending.failing.clear()\n\n",
        f"{ENGINE}::test_a_batch_that_is_refused_for_ever_holds_up_no_other_account_and_is_seen",
    ),
    PlantedBug(
        "who lacks a scope loses its signals",
        "retry.py",
        "(UnavailableError, PermissionDeniedError)",
        "(UnavailableError,)",
        f"{ENGINE}::test_who_lacks_a_scope_waits_for_it",
    ),
    PlantedBug(
        "a refused sign-in gives up the batch",
        "credentials.py",
        "raise replace(answer, status=401).error()",
        "raise answer.error()",
        "tests/client/test_producer.py::test_signals_wait_while_auth_refuses_to_sign_in",
    ),
    PlantedBug(
        "a key is exchanged again only when its token has ended",
        "credentials.py",
        "_REFRESH_AHEAD: Final = 0.2",
        "_REFRESH_AHEAD: Final = 0.0",
        f"{CREDENTIALS}::test_a_key_is_exchanged_again_when_80_percent_of_a_tokens_life_is_over",
    ),
    PlantedBug(
        "every thread exchanges the key for itself",
        "credentials.py",
        "if self._grant is not None and self._is_fresh(last, refused):",
        "if False:",
        f"{CREDENTIALS}::test_threads_and_event_loops_share_one_exchange",
    ),
    PlantedBug(
        "a renewal that fails for now takes the living token with it",
        "credentials.py",
        "if last is None or refused or self._clock() >= self._ends_at:",
        "if True:",
        f"{CREDENTIALS}::test_a_renewal_that_fails_for_now_goes_unnoticed_while_the_token_lives",
    ),
    PlantedBug(
        "a refused token is used further while it cannot be renewed",
        "credentials.py",
        "if last is None or refused or self._clock() >= self._ends_at:",
        "if last is None or self._clock() >= self._ends_at:",
        f"{CREDENTIALS}::test_a_refused_token_is_not_used_again_though_its_time_is_not_over",
    ),
    PlantedBug(
        "a forked child waits for a lock that no thread of its own holds",
        "credentials.py",
        "os.register_at_fork(after_in_child=_forget_locks)",
        "",
        f"{CREDENTIALS}::test_a_child_that_was_forked_during_a_renewal_can_renew",
    ),
    PlantedBug(
        "a new key does not find the signals of the one before",
        "credentials.py",
        "        return str(self.account_id)",
        "        return hashlib.sha256(self._api_key.encode()).hexdigest()",
        f"{CREDENTIALS}::test_an_identity_is_stable_and_tells_no_secret",
    ),
    PlantedBug(
        "a query waits for any Retry-After",
        "caller.py",
        " or wanted > LONGEST_RETRY_AFTER",
        "",
        "tests/client/test_query_requests.py"
        "::test_a_retry_after_that_is_too_long_to_wait_for_is_raised_to_the_caller",
    ),
    PlantedBug(
        "local times are sent without their offset",
        "signal.py",
        "moment = value.astimezone(UTC)",
        "moment = value.replace(tzinfo=UTC)",
        "tests/client/test_signal.py::test_what_is_sent_is_valid_and_reads_back_as_the_same_signal",
    ),
    PlantedBug(
        "numbers are measured with their exponent",
        "jsonb.py",
        '    if "e" in text:\n',
        '    if "E" in text:\n',
        "tests/client/test_signal.py::test_numbers_are_measured_without_an_exponent",
    ),
]


def is_caught(bug: PlantedBug) -> bool:
    """Plant the bug in a copy of the client and say whether its test fails."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "signal_persistence"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        source = (copy / bug.file).read_text()
        (copy / bug.file).write_text(source.replace(bug.right, bug.wrong, 1))
        options = ["-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={folder} ."]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, "--timeout=60", bug.test],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    # 1: tests ran and failed. Anything else (no such test, an import error) proves nothing.
    return done.returncode == 1 and " failed" in done.stdout


def plant(bugs: Sequence[PlantedBug]) -> None:
    """Plant those whose names hold all words of the command line; end with what is not caught."""
    chosen = [bug for bug in bugs if all(word in bug.name for word in sys.argv[1:])]
    missed = [bug.name for bug in chosen if not _try(bug)]
    sys.exit(f"Not caught: {', '.join(missed)}" if missed else 0)


def _try(bug: PlantedBug) -> bool:
    caught = is_caught(bug)
    verdict = "caught" if caught else "MISSED"
    sys.stdout.write(f"{verdict}  {bug.name}  ({bug.test.split('::')[1]})\n")
    sys.stdout.flush()
    return caught


if __name__ == "__main__":
    plant(BUGS)
