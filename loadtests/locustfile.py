"""Users, shape, counters and thresholds of the load test; loadtests/README.md says how to run it.

The shape first lets the users sign up (nothing of that counts), then measures, then stops. When
locust runs in several processes, workers report how many signals were accepted to the master.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import gevent
from locust import FastHttpUser, LoadTestShape, constant_throughput, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import WorkerRunner

from loadtests import options
from loadtests.profiles import Measured, Profile, violations
from loadtests.project import (
    Account,
    Keys,
    ProjectError,
    SignalSource,
    create_account,
    delete_account,
)

INGEST = "ingest-signals"
QUERY = "query-signals"
SPAWN_PER_SECOND = 20.0
SEED_SIGNALS = 1000
log = logging.getLogger("loadtests")


class Counters:
    """What locust's own statistics do not count, in this process or as told by workers."""

    def __init__(self) -> None:
        self.accepted = 0
        self.measured_from: float | None = None
        self.measured_seconds = 0.0
        self.measured_accepted = 0
        self.seeds = itertools.count(1)

    def start_measuring(self) -> None:
        self.accepted = 0
        self.measured_from = time.monotonic()

    def stop_measuring(self) -> None:
        if self.measured_from is not None:
            self.measured_seconds = time.monotonic() - self.measured_from
            self.measured_accepted = self.accepted


counters = Counters()


def profile_of(environment: Environment) -> Profile:
    """Return the profile that the command line asks for."""
    if environment.parsed_options is None:
        raise ValueError("Cannot choose a profile: locust has parsed no options")
    return options.profile_of(environment.parsed_options)


events.init_command_line_parser.add_listener(options.add_options)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Fix how many users of each class there are; stop before the start if that cannot be."""
    try:
        profile = profile_of(environment)
        Keys.from_environment()
    except (ValueError, ProjectError) as error:
        raise SystemExit(str(error)) from None
    IngestingUser.fixed_count = profile.ingesting_users
    QueryingUser.fixed_count = profile.querying_users


class ProfileShape(LoadTestShape):
    """Warm up, measure for the profile's seconds, stop."""

    def tick(self) -> tuple[int, float] | None:
        if self.runner is None:
            return None
        profile = profile_of(self.runner.environment)
        run_time = self.get_run_time()
        if run_time > profile.warm_up_seconds and counters.measured_from is None:
            self.runner.stats.reset_all()
            counters.start_measuring()
        if run_time > profile.warm_up_seconds + profile.seconds:
            counters.stop_measuring()
            return None
        return profile.users, SPAWN_PER_SECOND


class ProjectUser(FastHttpUser):
    """A user with an account of its own, made when it starts and deleted when it stops."""

    abstract = True
    account: Account
    prepared = False
    keys: Keys
    profile: Profile

    def on_start(self) -> None:
        self.profile = profile_of(self.environment)
        self.keys = Keys.from_environment()
        try:
            self.account = create_account(self._call, self.keys)
        except ProjectError as error:
            log.error("%s", error)
            self.environment.process_exit_code = 1
            if self.environment.runner is not None:
                gevent.spawn(self.environment.runner.quit)
            raise StopUser from None
        self.prepared = True
        self.source = SignalSource(self.account.trader_id, next(counters.seeds))

    def on_stop(self) -> None:
        parsed = self.environment.parsed_options
        if self.prepared and parsed is not None and not parsed.keep_accounts:
            delete_account(self._call, self.keys, self.account)

    def send(self, size: int) -> None:
        """Send one batch; it counts as failed unless every signal of it is accepted."""
        headers = {**self.account.headers, "Content-Type": "application/json"}
        with self.client.post(
            f"/functions/v1/{INGEST}",
            data=self.source.batch(size),
            headers=headers,
            name=INGEST,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"HTTP {response.status_code}: {response.text}")
                return
            accepted = response.json()["accepted"]
            counters.accepted += accepted
            if accepted != size:
                response.failure(f"{size - accepted} of {size} signals were not accepted")

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> Any:
        name = f"prepare {path.partition('?')[0].rpartition('/')[0]}"
        data = None if body is None else json.dumps(body)
        all_headers = {**headers, "Content-Type": "application/json"}
        with self.client.request(
            method, path, data=data, headers=all_headers, name=name, catch_response=True
        ) as response:
            response.success()
            if response.status_code // 100 != 2:
                raise ProjectError(
                    f"Cannot prepare the load test: {method} {path.partition('?')[0]} was "
                    f"answered with HTTP {response.status_code}: {response.text}"
                )
            return response.json() if response.text else None


class IngestingUser(ProjectUser):
    """Sends batches at an even pace: the writer processes of one account."""

    def wait_time(self) -> float:
        return float(constant_throughput(self.profile.requests_per_second)(self))

    @task
    def ingest(self) -> None:
        self.send(self.profile.batch_size)


class QueryingUser(ProjectUser):
    """Reads the newest page, a filtered page, and the page after it."""

    def on_start(self) -> None:
        super().on_start()
        self.send(SEED_SIGNALS)

    def wait_time(self) -> float:
        return float(constant_throughput(self.profile.queries_per_second)(self))

    @task(3)
    def newest(self) -> None:
        self._query({})

    @task(1)
    def filtered_with_next_page(self) -> None:
        query = {"symbols": "BTC/USDT,ETH/USDT", "min_confidence": "0.5", "page_size": "50"}
        cursor = self._query(query)
        if cursor:
            self._query({**query, "cursor": cursor})

    def _query(self, query: Mapping[str, str]) -> str | None:
        with self.client.get(
            f"/functions/v1/{QUERY}",
            params=dict(query),
            headers=dict(self.account.headers),
            name=QUERY,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"HTTP {response.status_code}: {response.text}")
                return None
            page = response.json()
            if not page["signals"]:
                response.failure("the page is empty, although signals were stored")
            cursor: str | None = page["next_cursor"]
            return cursor


@events.report_to_master.add_listener
def report_accepted(data: dict[str, Any], **_: Any) -> None:
    data["accepted_signals"] = counters.accepted
    counters.accepted = 0


@events.worker_report.add_listener
def add_accepted(data: Mapping[str, Any], **_: Any) -> None:
    counters.accepted += data["accepted_signals"]


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Print what was measured, and set the exit code by the thresholds."""
    if isinstance(environment.runner, WorkerRunner):
        return
    ingest = environment.stats.get(INGEST, "POST")
    query = environment.stats.get(QUERY, "GET")
    if not counters.measured_seconds:
        log.error("Cannot judge the load test: it stopped before its measured part was over")
        environment.process_exit_code = 1
        return
    measured = Measured(
        seconds=counters.measured_seconds,
        accepted=counters.measured_accepted,
        requests=ingest.num_requests + query.num_requests,
        failures=ingest.num_failures + query.num_failures,
        p95_ms=ingest.get_response_time_percentile(0.95),
        p99_ms=ingest.get_response_time_percentile(0.99),
        query_p95_ms=query.get_response_time_percentile(0.95),
    )
    found = violations(profile_of(environment), measured)
    figures = dataclasses.asdict(measured)
    figures["signals_per_minute"] = round(measured.signals_per_minute)
    print(json.dumps({"load": figures, "violations": found, "ok": not found}))
    for sentence in found:
        log.error("threshold not held: %s", sentence)
    environment.process_exit_code = 1 if found else 0
