"""A service on loopback that stores each signal once per account, for tests with real processes."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.client.loopback_service import CLOSE, LoopbackService, Received, Step, json_answer


def token_of(account: UUID) -> str:
    """Return an access token that names an account, as far as a client looks into it."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": str(account)}).encode())
    return f"e30.{claims.decode().rstrip('=')}.signature"


def api_key_of(account: UUID) -> str:
    return f"sgk_{account.hex}_{'0' * 64}"


@dataclass
class Memory:
    """What the service stores; an account is the token that its requests carry."""

    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Token → symbol and `generated_at` → signal, in the order of their seqs."""
    verdicts: dict[str, tuple[bytes, dict[str, Any]]] = field(default_factory=dict)
    sent_twice: int = 0
    """Signals that came again in a request of another id."""
    replayed: int = 0
    """Requests that came again."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Symbol → code of what is refused."""
    problems: list[str] = field(default_factory=list)
    lost_acks: int = 0
    """How many of the next answers are lost after the work is done."""
    down: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Received) -> Step:
        """Exchange an API key, or store a batch; the same request_id gets the same verdict."""
        if request.target.endswith("exchange-api-key"):
            account = UUID(hex=request.json()["api_key"][4:36])
            return json_answer({"access_token": token_of(account), "expires_in": 900})
        if self.down:
            return json_answer({"code": "unavailable", "message": "Down."}, 503)
        step = self._take(request)
        with self.lock:
            if self.lost_acks:
                self.lost_acks -= 1
                return CLOSE
        return step

    def _take(self, request: Received) -> Step:
        batch = request.json()
        with self.lock:
            known = self.verdicts.get(batch["request_id"])
            if known is not None:
                if known[0] != request.body:
                    self.problems.append("one request_id was used for two payloads")
                self.replayed += 1
                return json_answer(known[1])
            verdict = self._store(request.headers["authorization"].split()[1], batch)
            self.verdicts[batch["request_id"]] = (request.body, verdict)
            return json_answer(verdict)

    def signals(self, token: str) -> list[dict[str, Any]]:
        """Return what is stored of one account, in the order of its seqs."""
        with self.lock:
            return list(self.stored.get(token, {}).values())

    def count(self) -> int:
        with self.lock:
            return sum(map(len, self.stored.values()))

    def _store(self, token: str, batch: dict[str, Any]) -> dict[str, Any]:
        stored = self.stored.setdefault(token, {})
        first, items = len(stored) + 1, []
        for index, signal in enumerate(batch["signals"]):
            key = f"{signal['symbol']} {signal['generated_at']}"
            if signal["symbol"] in self.rejected:
                code = self.rejected[signal["symbol"]]
                items.append({"index": index, "code": code, "message": "No."})
            elif key in stored:
                items.append({"index": index, "code": "duplicate", "message": "Known."})
                self.sent_twice += 1
            else:
                stored[key] = signal
        duplicates = sum(item["code"] == "duplicate" for item in items)
        accepted = len(batch["signals"]) - len(items)
        return {
            "request_id": batch["request_id"],
            "accepted": accepted,
            "duplicate": duplicates,
            "rejected": len(items) - duplicates,
            "first_seq": first if accepted else None,
            "last_seq": first + accepted - 1 if accepted else None,
            "items": items,
        }


def storing_service(memory: Memory) -> LoopbackService:
    """Return a service with this memory; entering it starts it."""
    return LoopbackService(otherwise=memory.answer)
