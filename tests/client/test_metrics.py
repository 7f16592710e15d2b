"""What Prometheus is told is what happened, and adds up in every scrape."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from signal_persistence import SignalClient
from signal_persistence.ledger import ProducerStats
from signal_persistence.manager import SignalManager
from signal_persistence.metrics import Latencies, ManagerMetrics, ProducerMetrics
from tests.client.manager.model_store import ACCOUNT, Clock, ModelStore
from tests.client.scripted_service import make_signal
from tests.plugins.stack import Account, RunningStack

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SECTION = PAGE.read_text().partition("## Watch the trader processes")[2].partition("\n## ")[0]
LOG_SOMETHING = '\nlogging.getLogger("signal_persistence").warning("all is well")\n'

Samples = dict[tuple[str, tuple[str, ...]], float]


def scrape(registry: CollectorRegistry) -> Samples:
    """Return the samples of a scrape by name and label values, read as Prometheus reads them."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total_of(samples: Samples, name: str) -> float:
    return sum(value for (known, _), value in samples.items() if known == name)


def stats_of(**fields: Any) -> ProducerStats:
    counts = dict.fromkeys(ProducerStats.__dataclass_fields__, 0)
    return ProducerStats(**counts | {"outage_started_at": None, "breaker": "closed"} | fields)


def test_every_count_of_a_snapshot_is_told() -> None:
    registry = CollectorRegistry()
    metrics = ProducerMetrics(registry)
    started = datetime(2026, 1, 5, tzinfo=UTC)
    stats = stats_of(
        accepted=10,
        recovered=2,
        delivered=5,
        duplicates=1,
        rejected=2,
        failed=1,
        pending=2,
        pending_bytes=300,
        on_disk=1,
        spool_bytes=4096,
        batches=4,
        attempts=7,
        retries=3,
        callback_errors=1,
        callbacks_waiting=6,
        batch_messages=250,
        requests=2,
        breaker="half_open",
        outage_started_at=started,
    )
    metrics.observer("a").attached(lambda: stats)
    samples = scrape(registry)
    told = {
        name.removeprefix("signal_producer_"): value
        for (name, labels), value in samples.items()
        if labels == ("a",) and "seconds" not in name and not name.endswith("_created")
    }
    assert told == {
        "accepted_total": 10,
        "recovered_total": 2,
        "delivered_total": 5,
        "duplicates_total": 1,
        "batches_total": 4,
        "attempts_total": 7,
        "retries_total": 3,
        "callback_errors_total": 1,
        "pending": 2,
        "pending_bytes": 300,
        "on_disk": 1,
        "spool_bytes": 4096,
        "requests": 2,
        "batch_messages": 250,
        "callbacks_waiting": 6,
    }
    assert samples["signal_producer_dead_lettered_total", ("a", "rejected")] == 2
    assert samples["signal_producer_dead_lettered_total", ("a", "failed")] == 1
    states = {state: samples["signal_producer_breaker_state", ("a", state)] for state in BREAKER}
    assert states == {"closed": 0, "half_open": 1, "open": 0}
    outage = samples["signal_producer_outage_started_timestamp_seconds", ("a",)]
    assert outage == started.timestamp()


BREAKER = ("closed", "half_open", "open")


def test_producers_are_told_apart_by_name_and_one_registry_takes_one_collector() -> None:
    registry = CollectorRegistry()
    metrics = ProducerMetrics(registry)
    metrics.observer("a").attached(lambda: stats_of(accepted=1))
    metrics.observer("b").attached(lambda: stats_of(accepted=2))
    metrics.observer("not made yet")
    samples = scrape(registry)
    assert samples["signal_producer_accepted_total", ("a",)] == 1
    assert samples["signal_producer_accepted_total", ("b",)] == 2
    with pytest.raises(ValueError, match="Duplicated"):
        ProducerMetrics(registry)


@given(st.lists(st.floats(0, 20)), st.lists(st.floats(0, 20)))
def test_a_histogram_counts_every_value_in_all_buckets_that_bound_it(
    one_by_one: list[float], at_once: list[float]
) -> None:
    bounds = (0.001, 1.0, 10.0)
    latencies = Latencies(bounds)
    for value in one_by_one:
        latencies.observe(value)
    latencies.observe_all(at_once)
    values = one_by_one + at_once
    buckets, total = latencies.snapshot()
    expected = [sum(value <= bound for value in values) for bound in bounds]
    assert [count for _, count in buckets] == [*expected, len(values)]
    assert [name for name, _ in buckets] == ["0.001", "1.0", "10.0", "+Inf"]
    assert total == pytest.approx(sum(values))


def test_no_value_is_lost_when_threads_observe_at_once() -> None:
    latencies = Latencies((1.0,))

    def observe() -> None:
        for _ in range(20_000):
            latencies.observe(0.5)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=observe) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert latencies.snapshot() == ([("1.0", 80_000), ("+Inf", 80_000)], 40_000)


def test_a_producer_on_the_stack_adds_up_in_every_scrape_and_has_three_latencies(
    stack: RunningStack, account: Account
) -> None:
    registry = CollectorRegistry()
    metrics = ProducerMetrics(registry)
    done = threading.Event()
    wrong: list[Samples] = []

    def watch() -> None:
        while not done.is_set():
            samples = scrape(registry)
            if not _adds_up(samples):
                wrong.append(samples)

    watcher = threading.Thread(target=watch)
    environment = {
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
        "SIGNALS_ACCESS_TOKEN": account.access_token,
    }
    with SignalClient.from_env(environment) as client:
        trader_id = client.create_trader("prober").trader_id
        now = datetime.now(UTC)
        with client.producer(
            observer=metrics.observer("es"), spool_fsync="interval", spool_fsync_interval_ms=10
        ) as producer:
            watcher.start()
            # A free account: 100 are stored, the others are beyond its quota.
            for number in range(130):
                producer.publish(
                    make_signal(number, trader_id=trader_id, generated_at=now, symbol=f"S{number}")
                )
            assert producer.flush(20) == 0
        done.set()
        watcher.join(10)
    assert not wrong
    samples = scrape(registry)
    assert samples["signal_producer_accepted_total", ("es",)] == 130
    assert samples["signal_producer_delivered_total", ("es",)] == 100
    assert samples["signal_producer_dead_lettered_total", ("es", "rejected")] == 30
    assert samples["signal_producer_accepted_seconds_count", ("es",)] == 130
    assert samples["signal_producer_fsynced_seconds_count", ("es",)] == 130
    assert samples["signal_producer_delivered_seconds_count", ("es",)] == 100
    accepted, fsynced, delivered = (
        samples[f"signal_producer_{kind}_seconds_sum", ("es",)]
        for kind in ("accepted", "fsynced", "delivered")
    )
    assert 0 < accepted < fsynced
    assert accepted < delivered


def _adds_up(samples: Samples) -> bool:
    accepted = total_of(samples, "signal_producer_accepted_total")
    delivered = total_of(samples, "signal_producer_delivered_total")
    dead = total_of(samples, "signal_producer_dead_lettered_total")
    return accepted == delivered + dead + total_of(samples, "signal_producer_pending")


def test_a_manager_tells_its_differences_by_reason() -> None:
    clock = Clock()
    store = ModelStore(clock)
    registry = CollectorRegistry()
    with SignalManager(
        {ACCOUNT: store}, mode="dual_write", account_id=ACCOUNT, clock=clock, compare_interval=None
    ) as manager:
        ManagerMetrics(manager, registry)
        manager.publish(make_signal(0))
        assert manager.flush(5) == 0
        store.rows.clear()
        manager.compare()
        samples = scrape(registry)
    assert samples["signal_manager_differences_open", ()] == 1
    assert samples["signal_manager_differences_total", ("missing_in_database",)] == 1
    assert samples["signal_manager_compared_total", ()] == 1


def test_the_page_of_operations_names_every_metric_and_no_other() -> None:
    registry = CollectorRegistry()
    ProducerMetrics(registry).observer().attached(stats_of)
    with SignalManager(account_id=ACCOUNT) as manager:
        ManagerMetrics(manager, registry)
        told = {
            family.name + ("_total" if family.type == "counter" else "")
            for family in registry.collect()
        }
    assert set(re.findall(r"`(signal_(?:producer|manager)_\w+)`", SECTION)) == told


def test_the_example_of_the_page_runs_and_logs_json(stack: RunningStack, account: Account) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        # On a port that is free; with a line logged, as a healthy producer logs none.
        [sys.executable, "-W", "error", "-c", example.replace("9464", "0") + LOG_SOMETHING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ
        | {
            "SUPABASE_URL": stack.api_url,
            "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
            "SIGNALS_ACCESS_TOKEN": account.access_token,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "start-of-day free 0\n"
    [line] = done.stderr.splitlines()
    assert json.loads(line)["message"] == "all is well"


def test_prometheus_is_imported_by_those_who_ask_for_metrics_only() -> None:
    code = "import sys, signal_persistence, signal_persistence.manager; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "prometheus_client" not in done.stdout.split()
