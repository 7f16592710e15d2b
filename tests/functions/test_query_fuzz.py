"""Whatever is asked of query-signals, it answers or says what is wrong: it never fails."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.functions.worker import Worker, batch

TEXTS = st.sampled_from(["%", "~", "^", "é", "\0", "\ud800", "'", "\\", "{}", ""]) | st.text()
NUMBERS = st.sampled_from([0, 1, 0.5, 0.75, -1, 2, 1e15, -1e15, 1e300]) | st.floats(allow_nan=False)
INTEGERS = st.sampled_from([0, 1, 2, 10, 100, 2**53, 2**63 - 1, 2**63, -1]) | st.integers()
MOMENTS = st.sampled_from(
    [
        *("2026-11-20T00:00:00Z", "1000-01-01T00:00:00Z", "2999-12-31T23:59:59.999999-14:59"),
        *("1970-01-01T00:00:00+14:59", "2026-02-29T00:00:00Z", "infinity", "now"),
    ]
)
SPANS = st.sampled_from(["1h", "90s", "1d", "0s", "1 minute", "999999999d"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | INTEGERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3),
)


def lists(*words: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(words) | TEXTS, min_size=1, max_size=3)


SERIES = {
    "traders": lists("6f1b7a52-3c0e-4a8b-9d4f-0e6a5b1c2d3e"),
    "symbols": lists("BTC-USD", "ES"),
    "timeframes": lists("1m", "1M"),
    "actions": lists("enter_long", "exit_short"),
    "min_confidence": NUMBERS,
    "max_confidence": NUMBERS,
    "from": MOMENTS,
    "to": MOMENTS,
}
FILTER = {
    **SERIES,
    "symbol_prefix": st.sampled_from(["BTC", "^", "~"]) | TEXTS,
    "statuses": lists("generated", "closed"),
    "tags": lists("breakout"),
    "min_price": NUMBERS,
    "max_price": NUMBERS,
    "after_seq": INTEGERS,
    "until_seq": INTEGERS,
}
PAGE = {"cursor": TEXTS, "page_size": INTEGERS}
SORTS = ["newest", "oldest", "seq", "-seq", "confidence", "-confidence", "symbol", "-symbol"]
GROUPS = {"by": st.sampled_from(["trader", "symbol", "timeframe"]), "top": INTEGERS}
BUCKETS = {**SERIES, **GROUPS, "fill": st.sampled_from(["null", "previous", "linear"])}
VALUE = {"value": st.sampled_from(["signals", "net_entries", "confidence", "price"])}
PATHS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "": {**FILTER, **PAGE, "sort": st.sampled_from(SORTS), "fields": lists("seq", "status")},
    "/count": {**FILTER, "exact": st.booleans()},
    "/facets": FILTER,
    "/latest": {name: {**FILTER, **PAGE}[name] for name in ("symbols", "from", "page_size")},
    "/time-buckets": BUCKETS,
    "/rolling-statistics": {**BUCKETS, **VALUE, "window": INTEGERS, "min_periods": INTEGERS},
    "/correlations": {**BUCKETS, **VALUE, "max_lag": INTEGERS},
    "/co-occurrence": {**SERIES, **GROUPS, "window": SPANS},
    "/heat-map": {**SERIES, **GROUPS, "cycle": st.sampled_from(["day", "week"])},
}
NEEDED = {
    **dict.fromkeys(("/time-buckets", "/rolling-statistics", "/correlations"), ("from", "width")),
    "/co-occurrence": ("from", "window"),
    "/heat-map": ("from",),
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A path and arguments, so right that many get as far as the database."""
    path = draw(st.sampled_from(sorted(PATHS)))
    known = {**PATHS[path], "width": SPANS}
    names = draw(st.lists(st.sampled_from(sorted(PATHS[path])), max_size=3, unique=True))
    asked = {name: draw(known[name]) for name in (*NEEDED.get(path, ()), *names)}
    if draw(st.integers(0, 3)) == 0:
        asked[draw(st.sampled_from([*sorted(known), "colour"]))] = draw(ANYTHING)
    return path, asked


def in_query_string(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [written(each) for each in (value if isinstance(value, list) else [value])]
        for name, value in asked.items()
    }


def written(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


@settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(question=questions(), by_post=st.booleans())
def ask_anything(worker: Worker, question: tuple[str, dict[str, Any]], by_post: bool) -> None:
    path, asked = question
    answer = (
        worker.query_by_post(asked, path)
        if by_post
        else worker.query(path, **in_query_string(asked))
    )
    assert answer.status_code in (200, 400), (answer.status_code, answer.text)
    if answer.status_code == 400:
        assert set(answer.json()) == {"code", "message", "request_id"}


def test_no_question_makes_it_fail(worker: Worker) -> None:
    assert worker.ingest(batch(worker.signals(10))).json()["accepted"] == 10
    ask_anything(worker)
