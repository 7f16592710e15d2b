"""The benchmark of many sockets, made small: it measures and judges what arrived, not speed."""

from __future__ import annotations

from pathlib import Path

from tests.system.test_producer_benchmarks import bench


def test_every_socket_joins_observes_comes_back_and_heals(tmp_path: Path) -> None:
    report = bench("sockets", tmp_path, "--sockets", "40", "--spread", "0.5")
    reached = {name: report[name] for name in ("joined", "observed", "rejoined", "healed")}
    assert reached == dict.fromkeys(reached, 40)
    assert report["ok"] is True
    for name in ("join_seconds", "rejoin_seconds", "server_mb", "clients_mb"):
        assert report[name] > 0
    for name in ("observe_ms", "rejoin_ms"):
        assert set(report[name]) == {"p50", "p95", "p99"}
