"""Ask the local Realtime to fail; see local_stack/README.md."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx

from tests.plugins.stack import RunningStack


class LiveFaults:
    """Injects faults into one stack; `topic` limits them, and what is healed."""

    def __init__(self, stack: RunningStack, topic: str | None = None) -> None:
        self._topic = {} if topic is None else {"topic": topic}
        self._http = httpx.AsyncClient(
            base_url=f"{stack.api_url}/local/realtime",
            headers={"apikey": stack.service_role_key},
            timeout=20,
        )

    async def inject(self, fault: dict[str, Any]) -> None:
        answer = await self._http.post("/faults", json=fault | self._topic)
        assert answer.status_code == 201, answer.text

    async def heal(self) -> None:
        answer = await self._http.delete("/faults", params=self._topic)
        answer.raise_for_status()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.heal()
        await self._http.aclose()
