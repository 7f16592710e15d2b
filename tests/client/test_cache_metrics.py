"""What Prometheus is told of a cache is what the cache counted."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from signal_persistence.metrics import CacheMetrics
from tests.client.test_cache import Scene, in_a_scene
from tests.client.test_metrics import Samples, scrape

README = Path(__file__).parents[2] / "python_client" / "README.md"


def of_cache(samples: Samples, name: str) -> dict[str, float]:
    return {
        metric.removeprefix("signal_cache_"): value
        for (metric, labels), value in samples.items()
        if labels == (name,) and not metric.endswith("_created")
    }


def test_reads_merges_and_staleness_are_told() -> None:
    async def play(scene: Scene) -> None:
        registry = CollectorRegistry()
        metrics = CacheMetrics(registry)
        metrics.add(scene.cache, "worker")
        await scene.cache.newest()
        scene.account.store()
        await scene.settle()
        for _ in range(3):
            await scene.cache.newest()
        scene.account.followers[0].cut()
        await asyncio.sleep(3)
        samples = scrape(registry)
        told = of_cache(samples, "worker")
        assert told == {
            "hits_total": 3,
            "loads_total": 1,
            "failed_loads_total": 0,
            "status_checks_total": 0,
            "merged_total": 1,
            "evicted_total": 0,
            "answers": 1,
            "bytes": scene.cache.stats().bytes,
            "hit_ratio": 0.75,
            "age_seconds": pytest.approx(3, abs=0.3),
        }
        assert samples["signal_cache_misses_total", ("worker", "absent")] == 1
        assert samples["signal_cache_misses_total", ("worker", "stale")] == 0

    in_a_scene(play)


def test_caches_are_told_apart_by_name_and_one_registry_takes_one_collector() -> None:
    async def play(scene: Scene) -> None:
        registry = CollectorRegistry()
        metrics = CacheMetrics(registry)
        metrics.add(scene.cache)
        metrics.add(scene.cache, "other")
        samples = scrape(registry)
        assert of_cache(samples, "default") == of_cache(samples, "other")
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            CacheMetrics(registry)

    in_a_scene(play)


def test_the_readme_names_every_metric() -> None:
    async def play(scene: Scene) -> None:
        registry = CollectorRegistry()
        CacheMetrics(registry).add(scene.cache)
        names = {name for name, _ in scrape(registry) if not name.endswith("_created")}
        assert set(re.findall(r"`(signal_cache_\w+)`", README.read_text())) == names

    in_a_scene(play)
