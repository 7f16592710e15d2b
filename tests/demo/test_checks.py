"""A demonstration in which anything went wrong is not reported as a success."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from uuid import UUID

import pytest

from demo.checks import Evidence, percentiles, report
from demo.isolation import IntrusionReport
from demo.messages import FollowerResult, PublisherResult, Seen
from demo.plan import FREE_SIGNALS, TIERS, plan_workers
from tests.checkers.histories import Stored

SIZES = {"free": 150, "pro": 1200, "elite": 300}
STORED = {"free": 100, "pro": 1000, "elite": 300}
CODES = {"free": "quota_exceeded", "pro": "rate_limited"}


def ids_of(tier: str) -> list[UUID]:
    first = 1_000_000 * (TIERS.index(tier) + 1)
    return [UUID(int=first + number) for number in range(SIZES[tier])]


def flawless() -> Evidence:
    """What a demonstration without any fault leaves behind."""
    publishers, seen, stored = [], {}, {}
    for tier in TIERS:
        offered, count = ids_of(tier), STORED[tier]
        outcomes = {"accepted": count}
        if len(offered) > count:
            outcomes[CODES[tier]] = len(offered) - count
        publishers.append(
            PublisherResult(tier, tier, offered, offered[:count], outcomes, [5.0] * len(offered))
        )
        stored[tier] = [Stored(id_, seq) for seq, id_ in enumerate(offered[:count], start=1)]
        seen[tier] = Seen(offered[:count], list(range(1, count + 1)), [9.0] * count)
    intrusion = IntrusionReport(0, True, True, True, True)
    return Evidence(publishers, FollowerResult("follower", seen), stored, intrusion, minutes=1)


def test_a_flawless_demonstration_is_ok() -> None:
    told = report(flawless())
    assert told["ok"], told
    assert told["published"] == told["stored"] == told["observed"] == 1400
    assert told["quota_rejected"] == 50
    assert told["rate_limited"] == 200
    assert told["ack_ms"] == {"p50": 5.0, "p95": 5.0, "p99": 5.0}


def lose_one(evidence: Evidence) -> None:
    del evidence.stored["elite"][-1]  # type: ignore[attr-defined]


def store_twice(evidence: Evidence) -> None:
    elite = evidence.stored["elite"]
    elite.append(Stored(elite[0].signal_id, 301))  # type: ignore[attr-defined]


def leave_a_gap(evidence: Evidence) -> None:
    last = evidence.stored["elite"][-1]
    evidence.stored["elite"][-1] = Stored(last.signal_id, 305)  # type: ignore[index]


def miss_one(evidence: Evidence) -> None:
    seen = evidence.follower.seen["elite"]
    del seen.signal_ids[7], seen.seqs[7]


def show_another_account(evidence: Evidence) -> None:
    seen = evidence.follower.seen["free"]
    seen.signal_ids.append(evidence.stored["elite"][0].signal_id)
    seen.seqs.append(101)


def show_twice(evidence: Evidence) -> None:
    seen = evidence.follower.seen["elite"]
    seen.signal_ids.insert(5, seen.signal_ids[4])
    seen.seqs.insert(5, seen.seqs[4])


def let_free_store_more(evidence: Evidence) -> None:
    free = evidence.publishers[0]
    free.accepted.append(free.offered[100])
    free.outcomes.update(accepted=101, quota_exceeded=49)


def refuse_free_for_another_reason(evidence: Evidence) -> None:
    free = evidence.publishers[0]
    free.outcomes["rate_limited"] = free.outcomes.pop("quota_exceeded")


def let_pro_exceed_its_minute(evidence: Evidence) -> None:
    evidence.publishers[1].outcomes.update(accepted=1001, rate_limited=199)


def refuse_elite_something(evidence: Evidence) -> None:
    evidence.publishers[2].outcomes.update(accepted=299, rate_limited=1)


def forget_a_verdict(evidence: Evidence) -> None:
    evidence.publishers[2].outcomes["accepted"] -= 1


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        (lose_one, "no_lost"),
        (lose_one, "published_equals_stored"),
        (store_twice, "no_duplicated"),
        (leave_a_gap, "no_gap"),
        (miss_one, "no_skipped"),
        (miss_one, "stored_equals_observed"),
        (show_another_account, "no_leaked"),
        (show_twice, "no_non_monotonic"),
        (let_free_store_more, "free_stops_at_its_quota"),
        (refuse_free_for_another_reason, "free_stops_at_its_quota"),
        (let_pro_exceed_its_minute, "pro_keeps_to_its_rate"),
        (refuse_elite_something, "elite_is_not_limited"),
        (forget_a_verdict, "every_signal_has_its_verdict"),
    ],
)
def test_a_fault_fails_the_check_that_is_named_after_it(
    fault: Callable[[Evidence], None], failing: str
) -> None:
    evidence = flawless()
    fault(evidence)
    told = report(evidence)
    assert told["checks"][failing] is False
    assert told["ok"] is False


@pytest.mark.parametrize(
    "field", ["query_refused", "view_refused", "channel_refused", "write_refused"]
)
def test_an_intrusion_that_succeeds_is_a_failure(field: str) -> None:
    evidence = flawless()
    opened = dataclasses.replace(evidence.intrusion, signals=3, **{field: False})
    told = report(dataclasses.replace(evidence, intrusion=opened))
    assert told["leaked"] == 3
    assert told["ok"] is False


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles([float(n) for n in range(1, 101)]) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


@pytest.mark.parametrize("rate", [600, 30_000, 100_000])
@pytest.mark.parametrize("seconds", [5, 10, 20, 60])
def test_the_rate_is_shared_out_and_free_always_reaches_its_quota(
    rate: float, seconds: float
) -> None:
    plans = {plan.name: plan for plan in plan_workers(rate, seconds)}
    assert {plan.tier for plan in plans.values()} == set(TIERS)
    assert (
        plans["free"].at_most == FREE_SIGNALS == round(plans["free"].signals_per_second * seconds)
    )
    # What one minute beyond those that it publishes in has room for, wherever it began in one.
    assert plans["pro"].signals_per_second * seconds < 1_000 * (2 + seconds // 60)
    if rate >= 30_000:
        total = sum(plan.signals_per_second for plan in plans.values())
        assert total == pytest.approx(rate / 60)
