"""Judge a demonstration: from what was published, stored and observed to the final report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from demo.isolation import IntrusionReport
from demo.messages import FollowerResult, PublisherResult
from demo.plan import PRO_PER_MINUTE
from tests.checkers.histories import AccountHistory, Reader, Stored, anomalies

FREE_DAILY = 100
PRO_DAILY = 10_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known at the end. `minutes` is how many clock minutes were touched."""

    publishers: Sequence[PublisherResult]
    follower: FollowerResult
    stored: Mapping[str, Sequence[Stored]]
    intrusion: IntrusionReport
    minutes: int


def report(evidence: Evidence) -> dict[str, Any]:
    """Return the figures and checks of the last line."""
    history = {tier: _history(evidence, tier) for tier in evidence.stored}
    found = {name: len(list_) for name, list_ in anomalies(history).items()}
    published = sum(len(publisher.accepted) for publisher in evidence.publishers)
    stored = sum(map(len, evidence.stored.values()))
    observed = sum(len(seen.seqs) for seen in evidence.follower.seen.values())
    outcomes = sum((Counter(p.outcomes) for p in evidence.publishers), Counter[str]())
    offered = sum(len(publisher.offered) for publisher in evidence.publishers)
    checks = {
        "published_equals_stored": published == stored > 0,
        "stored_equals_observed": stored == observed,
        "every_signal_has_its_verdict": outcomes.total() == offered,
        **{f"no_{name}": count == 0 for name, count in found.items()},
        "foreign_query_finds_nothing": evidence.intrusion.query_refused,
        "foreign_view_shows_nothing": evidence.intrusion.view_refused,
        "foreign_channel_is_closed": evidence.intrusion.channel_refused,
        "foreign_trader_is_unknown": evidence.intrusion.write_refused,
        "free_stops_at_its_quota": _free_stops_at_its_quota(evidence),
        "pro_keeps_to_its_rate": _pro_keeps_to_its_rate(evidence),
        "elite_is_not_limited": set(_outcomes(evidence, "elite")) == {"accepted"},
    }
    return {
        "offered": offered,
        "published": published,
        "stored": stored,
        "observed": observed,
        "duplicates": found["duplicated"] + found["non_monotonic"],
        "gaps": sum(map(_missing_seqs, evidence.stored.values())),
        "leaked": found["leaked"] + evidence.intrusion.signals,
        "quota_rejected": outcomes["quota_exceeded"],
        "rate_limited": outcomes["rate_limited"],
        "ack_ms": percentiles([ms for p in evidence.publishers for ms in p.ack_ms]),
        "live_ms": percentiles([ms for s in evidence.follower.seen.values() for ms in s.live_ms]),
        "checks": checks,
        "ok": all(checks.values()),
    }


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p95 and p99 (nearest rank) in the unit of the values."""
    ordered = sorted(values)
    ranks = {"p50": 50, "p95": 95, "p99": 99}
    return {
        name: round(ordered[-(-len(ordered) * rank // 100) - 1], 2) if ordered else None
        for name, rank in ranks.items()
    }


def _history(evidence: Evidence, tier: str) -> AccountHistory:
    mine = [publisher for publisher in evidence.publishers if publisher.tier == tier]
    seen = evidence.follower.seen[tier]
    return AccountHistory(
        stored=evidence.stored[tier],
        offered={publisher.sender: publisher.offered for publisher in mine},
        acknowledged={publisher.sender: publisher.accepted for publisher in mine},
        readers=[Reader("live", list(map(Stored, seen.signal_ids, seen.seqs)))],
    )


def _missing_seqs(stored: Sequence[Stored]) -> int:
    seqs = sorted({0, *(signal.seq for signal in stored)})
    return sum(after - before - 1 for before, after in pairwise(seqs))


def _outcomes(evidence: Evidence, tier: str) -> Counter[str]:
    mine = (Counter(p.outcomes) for p in evidence.publishers if p.tier == tier)
    return sum(mine, Counter[str]())


def _free_stops_at_its_quota(evidence: Evidence) -> bool:
    outcomes = _outcomes(evidence, "free")
    return set(outcomes) == {"accepted", "quota_exceeded"} and outcomes[
        "accepted"
    ] == FREE_DAILY == len(evidence.stored["free"])


def _pro_keeps_to_its_rate(evidence: Evidence) -> bool:
    """Whatever exceeds the minute is refused as that, and only what exceeds it."""
    outcomes = _outcomes(evidence, "pro")
    accepted, refused = outcomes["accepted"], outcomes["rate_limited"] + outcomes["quota_exceeded"]
    most = min(PRO_PER_MINUTE * evidence.minutes, PRO_DAILY)
    return (
        accepted <= most
        and accepted + refused == outcomes.total()
        and (refused == 0 or accepted >= PRO_PER_MINUTE)
        and (refused > 0 or outcomes.total() <= most)
    )
