"""Signals as JSON values: right ones, nearly right ones and wrong ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from signal_persistence.contract import CONTRACT

PRICES = st.one_of(
    st.integers(-(10**15), 10**15),
    st.floats(-1e15, 1e15, allow_nan=False),
)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    WORDS,
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
SYMBOL_LETTERS = "ABCXYZabcxyz0129._/:=@#!&^+-"


def two_digits(low: int, high: int) -> st.SearchStrategy[str]:
    return st.integers(low, high).map("{:02d}".format)


RIGHT_PARTS: list[st.SearchStrategy[str]] = [
    st.sampled_from(["1000", "2024", "2026", "2999"]),
    two_digits(1, 12).map("-{}".format),
    two_digits(1, 28).map("-{}T".format),
    two_digits(0, 23),
    two_digits(0, 59).map(":{}".format),
    two_digits(0, 59).map(":{}".format),
    st.sampled_from(["", ".1", ".12", ".120", ".1234", ".12345", ".123456"]),
    st.sampled_from(["Z", "+00:00", "-00:00", "+14:00", "-14:59", "+05:30"]),
]
WRONG_PARTS: list[st.SearchStrategy[str]] = [
    st.sampled_from(["0999", "3000", "26", "12026", "-2026", " 2026"]),
    st.sampled_from(["-00", "-13", "-2", "/02", "02"]),
    st.sampled_from(["-29T", "-30T", "-31T", "-32T", "-00T", "-1T", "-10t", "-10 ", "-10"]),
    st.sampled_from(["24", "25", "7", "-1"]),
    st.sampled_from([":60", ":7", "30", ""]),
    st.sampled_from([":60", ":61", ":7", ""]),
    st.sampled_from([".", ".1234567", ",5", " .5"]),
    st.sampled_from(
        [
            "z",
            "",
            "",
            "+15:00",
            "-15:59",
            "+16:00",
            "-15:30",
            "+14:60",
            "+0530",
            "+05",
            "+05:30:00",
            " UTC",
            " +05:30",
            "+24:00",
            "Z ",
            "Z\n",
        ]
    ),
]


def timestamps(wrong_parts: int) -> st.SearchStrategy[str]:
    """Timestamps of the contract's form, but for up to `wrong_parts` parts just outside of it."""

    def with_wrong(positions: list[int]) -> st.SearchStrategy[str]:
        parts = [
            (WRONG_PARTS if position in positions else RIGHT_PARTS)[position]
            for position in range(len(RIGHT_PARTS))
        ]
        return st.tuples(*parts).map("".join)

    return st.lists(st.integers(0, 7), max_size=wrong_parts).flatmap(with_wrong)


UUIDS = st.uuids().map(str).flatmap(lambda text: st.sampled_from([text, text.upper()]))
METADATA = st.dictionaries(WORDS, JSON_VALUES, max_size=4)
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "trader_id": UUIDS,
    "symbol": st.text(SYMBOL_LETTERS, min_size=1, max_size=32),
    "timeframe": st.sampled_from(sorted(CONTRACT.timeframes)),
    "generated_at": timestamps(0),
    "action": st.sampled_from(sorted(CONTRACT.actions)),
    "confidence": st.floats(0, 1) | st.integers(0, 1),
    "price": PRICES,
}
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "stop_loss": st.none() | PRICES,
    "take_profit": st.none() | PRICES,
    "valid_until": st.none() | timestamps(0),
    "metadata": st.none() | METADATA,
}
LARGE_PRICES = st.sampled_from([1e15, -1e15, 10**15, 10**15 + 1, 1000000000000000.2, 1e16, 1e308])
NEARLY: dict[str, st.SearchStrategy[Any]] = {
    "trader_id": st.sampled_from(
        [
            "7d444840-9dc0-11d1-b245-5ffdce74fad2\n",
            "{7d444840-9dc0-11d1-b245-5ffdce74fad2}",
            "7d4448409dc011d1b2455ffdce74fad2",
            "7d444840-9dc0-11d1-b245-5ffdce74fadg",
            "7d444840-9dc0-11d1-b245-5ffdce74fadK",
            "urn:uuid:7d444840-9dc0-11d1-b245-5ffdce74fad2",
        ]
    ),
    "symbol": st.sampled_from(["", "A" * 33, "BTC USD", "BTC\n", "ÄBC", "BTC\\", "K", "A\x00"]),
    "timeframe": st.sampled_from(["", "1M ", "1m\n", "7m", "1D", "60", "1\u200dm"]),
    "generated_at": timestamps(1),
    "action": st.sampled_from(["", "enter", "Enter_long", "enter_long ", "buy"]),
    "confidence": st.sampled_from([-0.0, 5e-324, 1.0000000000000002, -5e-324, 2, True, "0.5"]),
    "price": LARGE_PRICES,
    "stop_loss": LARGE_PRICES,
    "take_profit": LARGE_PRICES,
    "valid_until": timestamps(1),
    "metadata": st.dictionaries(
        WORDS,
        st.integers(1995, 2040).map("x".__mul__)
        | st.sampled_from(["\x00", "\ud800", "a\udfff", {"\x00": 1}, {"k": ["\ud800"]}])
        | st.floats(allow_nan=False, allow_infinity=False).flatmap(
            lambda number: st.integers(1, 400).map(lambda count: [number] * count)
        ),
        max_size=2,
    ),
}
GOOD_SIGNALS = st.fixed_dictionaries(RIGHT, optional=OPTIONAL)


@st.composite
def any_signals(draw: st.DrawFn) -> Any:
    """Draw a signal in which up to two fields are missing, nearly right, or anything at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(JSON_VALUES)
    signal = dict(draw(GOOD_SIGNALS))
    for name in draw(st.lists(st.sampled_from(CONTRACT.fields), max_size=2)):
        match draw(st.sampled_from(["missing", "nearly", "nearly", "anything", "null"])):
            case "missing":
                signal.pop(name, None)
            case "nearly":
                signal[name] = draw(NEARLY[name])
            case "anything":
                signal[name] = draw(JSON_VALUES)
            case "null":
                signal[name] = None
    if draw(st.integers(0, 19)) == 0:
        signal[draw(WORDS)] = 1
    return signal
