"""What one check of `signals doctor` found."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's: what was looked at, what was found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    advice: str | None = None
