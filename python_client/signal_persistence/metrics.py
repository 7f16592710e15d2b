"""Prometheus metrics of producers, managers and caches.

They need the extra `metrics` (prometheus-client).

    metrics = ProducerMetrics()
    producer = client.producer(observer=metrics.observer("es-trader"))

Everything that is counted of a producer comes from one snapshot, so that in every scrape
accepted = delivered + dead-lettered + pending, exactly.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

try:
    from prometheus_client.core import (
        REGISTRY,
        CollectorRegistry,
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "Cannot collect metrics without prometheus-client: install signal-persistence[metrics]."
    ) from missing

from signal_persistence.cache import AsyncSignalCache, SignalCache
from signal_persistence.delivery import DeliveryReport
from signal_persistence.ledger import ProducerStats
from signal_persistence.manager.manager import SignalManager

_ACCEPTED_SECONDS: Final = (
    2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1, 1.0,
)  # fmt: skip
_FSYNCED_SECONDS: Final = (
    1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
_DELIVERED_SECONDS: Final = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
)  # fmt: skip
_BREAKER_STATES: Final = ("closed", "half_open", "open")

_COUNTERS: Final = {
    "accepted": "Signals that publish() took, those recovered from the spool included",
    "recovered": "Accepted signals that a former process left in the spool",
    "delivered": "Signals that the service stores",
    "duplicates": "Delivered signals that were stored before",
    "batches": "Batches that were made",
    "attempts": "Requests that were sent",
    "retries": "Requests that sent a batch again",
    "callback_errors": "on_delivery callbacks that raised",
}
_GAUGES: Final = {
    "pending": "Accepted signals that have no report yet",
    "pending_bytes": "Bytes of pending signals in memory",
    "on_disk": "Pending signals that are on disk only",
    "spool_bytes": "Bytes of the spool on disk",
    "requests": "Requests under way",
    "batch_messages": "The most signals of a batch at the pace of the moment",
    "callbacks_waiting": "Reports on their way to on_delivery",
}

_CACHE_COUNTERS: Final = {
    "hits": "Reads that memory answered",
    "loads": "Queries for a read; reads that miss at the same time share one",
    "failed_loads": "Queries for a read that failed, or that everybody stopped waiting for",
    "status_checks": "Times that it was asked what became of signals",
    "merged": "Signals that following has brought, once for each answer that they belong to",
    "evicted": "Answers that made room for others",
}
_CACHE_GAUGES: Final = {
    "entries": ("answers", "Answers in memory"),
    "bytes": ("bytes", "Bytes of the signals in memory"),
    "hit_ratio": ("hit_ratio", "Share of the reads so far that memory answered"),
    "age": ("age_seconds", "Seconds since the answers in memory were known to be right"),
}
"""Field of CacheStats → name and text of its metric."""


class Latencies:
    """A histogram of seconds, safe for threads: `observe` takes well under a microsecond."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper bounds of the buckets, rising; one without bound is added."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Count one."""
        bucket = bisect_left(self._bounds, seconds)
        with self._lock:
            self._counts[bucket] += 1
            self._sum += seconds

    def observe_all(self, seconds: Sequence[float]) -> None:
        """Count many at once."""
        buckets = [bisect_left(self._bounds, value) for value in seconds]
        with self._lock:
            for bucket in buckets:
                self._counts[bucket] += 1
            self._sum += sum(seconds)

    def snapshot(self) -> tuple[list[tuple[str, float]], float]:
        """Return the buckets, counted from the first as Prometheus has them, and the sum."""
        with self._lock:
            counts, total = self._counts.copy(), self._sum
        names = [*map(repr, self._bounds), "+Inf"]
        return [(name, float(n)) for name, n in zip(names, accumulate(counts), strict=True)], total


class _Observed:
    """The `ProducerObserver` of one producer."""

    def __init__(self) -> None:
        self.stats: Callable[[], ProducerStats] | None = None
        self.accepted_seconds = Latencies(_ACCEPTED_SECONDS)
        self.fsynced_seconds = Latencies(_FSYNCED_SECONDS)
        self.delivered_seconds = Latencies(_DELIVERED_SECONDS)
        # Called for every signal: without a method of ours in between.
        self.accepted = self.accepted_seconds.observe
        self.fsynced = self.fsynced_seconds.observe_all

    def attached(self, stats: Callable[[], ProducerStats]) -> None:
        self.stats = stats

    def settled(self, reports: Sequence[DeliveryReport]) -> None:
        self.delivered_seconds.observe_all([r.latency for r in reports if r.stored])


class ProducerMetrics(Collector):
    """Collects the metrics of producers, each under a name of its own (the label `producer`)."""

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        """It registers itself; with None it does not."""
        self._observed: dict[str, _Observed] = {}
        if registry is not None:
            registry.register(self)

    def observer(self, producer: str = "default") -> _Observed:
        """Return the `observer` of a new producer; one of the same name takes its place."""
        observed = _Observed()
        self._observed[producer] = observed
        return observed

    def collect(self) -> Iterator[Metric]:
        """Take one snapshot of each producer, and yield all metrics."""
        observed = dict(self._observed)
        stats = {name: one.stats() for name, one in observed.items() if one.stats is not None}
        yield from _of_stats(stats)
        for seconds, text in (
            ("accepted_seconds", "publish() until the signal was in the buffer or the spool"),
            ("fsynced_seconds", "publish() until the signal was on the disk for good"),
            ("delivered_seconds", "publish() until the service had stored the signal"),
        ):
            family = HistogramMetricFamily(
                f"signal_producer_{seconds}", f"Seconds from {text}", labels=["producer"]
            )
            for name, one in observed.items():
                latencies: Latencies = getattr(one, seconds)
                buckets, total = latencies.snapshot()
                family.add_metric([name], buckets, total)
            yield family

    def describe(self) -> Iterator[Metric]:
        """Name the metrics, so that a registry sees a second collector of the same."""
        return self.collect()


class ManagerMetrics(Collector):
    """Collects what a SignalManager found different between memory and the database."""

    def __init__(
        self, manager: SignalManager, registry: CollectorRegistry | None = REGISTRY
    ) -> None:
        """It registers itself; with None it does not."""
        self._manager = manager
        if registry is not None:
            registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, of one snapshot."""
        report = self._manager.differences()
        yield GaugeMetricFamily(
            "signal_manager_differences_open",
            "Differences between memory and database that stand",
            value=len(report.open) + report.overflowed,
        )
        found = CounterMetricFamily(
            "signal_manager_differences",
            "Differences between memory and database that were found",
            labels=["reason"],
        )
        for reason, count in sorted(report.found.items()):
            found.add_metric([reason], count)
        yield found
        yield CounterMetricFamily(
            "signal_manager_compared",
            "Comparisons of a signal in memory and in the database",
            value=report.compared,
        )


class CacheMetrics(Collector):
    """Collects the metrics of caches, each under a name of its own (the label `cache`)."""

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        """It registers itself; with None it does not."""
        self._caches: dict[str, SignalCache | AsyncSignalCache] = {}
        if registry is not None:
            registry.register(self)

    def add(self, cache: SignalCache | AsyncSignalCache, name: str = "default") -> None:
        """Collect the metrics of `cache` too; one of the same name is replaced."""
        self._caches[name] = cache

    def collect(self) -> Iterator[Metric]:
        """Take one snapshot of each cache, and yield all metrics."""
        stats = {name: cache.stats() for name, cache in self._caches.copy().items()}
        misses = CounterMetricFamily(
            "signal_cache_misses",
            "Reads that memory could not answer",
            labels=["cache", "reason"],
        )
        for name, one in stats.items():
            for reason, count in one.misses.items():
                misses.add_metric([name, reason], count)
        yield misses
        for field, text in _CACHE_COUNTERS.items():
            counter = CounterMetricFamily(f"signal_cache_{field}", text, labels=["cache"])
            for name, one in stats.items():
                counter.add_metric([name], getattr(one, field))
            yield counter
        for field, (metric, text) in _CACHE_GAUGES.items():
            gauge = GaugeMetricFamily(f"signal_cache_{metric}", text, labels=["cache"])
            for name, one in stats.items():
                gauge.add_metric([name], getattr(one, field))
            yield gauge

    def describe(self) -> Iterator[Metric]:
        """Name the metrics, so that a registry sees a second collector of the same."""
        return self.collect()


def _of_stats(stats: dict[str, ProducerStats]) -> Iterator[Metric]:
    for field, text in _COUNTERS.items():
        counter = CounterMetricFamily(f"signal_producer_{field}", text, labels=["producer"])
        for name, one in stats.items():
            counter.add_metric([name], getattr(one, field))
        yield counter
    for field, text in _GAUGES.items():
        gauge = GaugeMetricFamily(f"signal_producer_{field}", text, labels=["producer"])
        for name, one in stats.items():
            gauge.add_metric([name], getattr(one, field))
        yield gauge
    dead = CounterMetricFamily(
        "signal_producer_dead_lettered",
        "Signals that were not stored: rejected by the service, or failed to be delivered",
        labels=["producer", "status"],
    )
    breaker = GaugeMetricFamily(
        "signal_producer_breaker_state",
        "1 for the state of the circuit breaker",
        labels=["producer", "state"],
    )
    outage = GaugeMetricFamily(
        "signal_producer_outage_started_timestamp_seconds",
        "Since when sending fails, in Unix time; 0 while it does not",
        labels=["producer"],
    )
    for name, one in stats.items():
        dead.add_metric([name, "rejected"], one.rejected)
        dead.add_metric([name, "failed"], one.failed)
        for state in _BREAKER_STATES:
            breaker.add_metric([name, state], one.breaker == state)
        started = one.outage_started_at
        outage.add_metric([name], started.timestamp() if started else 0)
    yield from (dead, breaker, outage)
