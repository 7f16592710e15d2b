"""The scenarios that the clients of every language run: tests/scenarios/live_delivery.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_FILE: Final = Path(__file__).parents[2] / "scenarios" / "live_delivery.json"
_SCENARIOS: Final[dict[str, Any]] = json.loads(_FILE.read_text())

CORE: Final[list[dict[str, Any]]] = _SCENARIOS["core"]
REFUSALS: Final[list[dict[str, Any]]] = _SCENARIOS["refusals"]
LIVE: Final[list[dict[str, Any]]] = _SCENARIOS["live"]
