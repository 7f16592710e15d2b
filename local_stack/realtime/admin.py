"""The endpoints that hosted Realtime does not have: faults to inject, and a plan to be held to.

Only whoever has the project's service key may use them. What each fault does is in the README.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator

import msgspec
from aiohttp import web

from local_stack.realtime.authorization import TokenRefusal, expired_text
from local_stack.realtime.channels import Channel
from local_stack.realtime.faults import (
    ABORTED,
    AT_ONCE,
    ActiveFault,
    Fault,
    FaultError,
    Kind,
    parse,
)
from local_stack.realtime.quotas import PLANS
from local_stack.realtime.services import Services
from local_stack.realtime.session import Session

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """Faults and quotas of one Realtime. `sessions` are those that are open."""

    def __init__(self, services: Services, sessions: Collection[Session]) -> None:
        self._services = services
        self._sessions = sessions

    def routes(self) -> list[web.RouteDef]:
        faults, plan = "/local/realtime/faults", "/local/realtime/plan"
        return [
            web.post(faults, self._for_service_role(self._inject)),
            web.get(faults, self._for_service_role(self._list)),
            web.delete(faults, self._for_service_role(self._heal)),
            web.put(plan, self._for_service_role(self._choose_plan)),
        ]

    def _for_service_role(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            authorization = request.headers.get("Authorization", "")
            key = request.headers.get("apikey") or authorization.removeprefix("Bearer ")
            try:
                identity = self._services.authenticator.identify_api_key(key)
            except TokenRefusal as refusal:
                return _refused(401, refusal.handshake_text)
            if identity.verified.role != "service_role":
                return _refused(403, "Cannot do this: it needs the project's service key")
            return await handler(request)

        return handle

    async def _inject(self, request: web.Request) -> web.StreamResponse:
        try:
            active = self._services.faults.inject(parse(await request.read()))
        except FaultError as error:
            return _refused(400, str(error))
        self._begin(active)
        return web.json_response(active.describe(), status=201)

    async def _list(self, _request: web.Request) -> web.StreamResponse:
        injected = self._services.faults.injected()
        return web.json_response({"faults": [active.describe() for active in injected]})

    async def _heal(self, request: web.Request) -> web.StreamResponse:
        healed = self._services.faults.forget(request.query.get("topic"))
        return web.json_response({"faults": [active.describe() for active in healed]})

    async def _choose_plan(self, request: web.Request) -> web.StreamResponse:
        try:
            name = msgspec.json.decode(await request.read(), type=dict[str, str | None])["plan"]
            plan = None if name is None else PLANS[name]
        except (msgspec.MsgspecError, KeyError, RecursionError):
            return _refused(400, f"Cannot choose the plan: it is null, {', '.join(PLANS)}")
        self._services.usage.choose(plan)
        return web.json_response({"plan": name})

    def _begin(self, active: ActiveFault) -> None:
        """Do what has to be done now; the rest happens when it is asked for."""
        tail = self._services.tail
        match active.fault.kind:
            case Kind.STALL_REPLICATION:
                active.strike()
                tail.stall(active.ended)
            case Kind.LOSE_SLOT:
                active.strike()
                tail.lose_slot(active.ended)
            case Kind.CLOSE_SOCKETS | Kind.FREEZE:
                for session in self._struck_sessions(active):
                    _strike_session(session, active)
            case kind if kind in AT_ONCE:
                for session, channel in self._struck_channels(active):
                    _strike_channel(session, channel, active.fault)

    def _struck_sessions(self, active: ActiveFault) -> Iterator[Session]:
        topic = active.fault.topic
        for session in list(self._sessions):
            if (topic is None or session.channels_of(topic)) and active.strike():
                yield session

    def _struck_channels(self, active: ActiveFault) -> Iterator[tuple[Session, Channel]]:
        for session in list(self._sessions):
            for channel in session.channels_of(active.fault.topic):
                if active.strike():
                    yield session, channel


def _strike_session(session: Session, active: ActiveFault) -> None:
    if active.fault.kind is Kind.FREEZE:
        session.freeze(active.ended)
    elif active.fault.code == ABORTED:
        session.abort()
    else:
        session.close(active.fault.code)


def _strike_channel(session: Session, channel: Channel, fault: Fault) -> None:
    if fault.kind is Kind.PHX_ERROR:
        session.crash(channel)
    elif fault.kind is Kind.EXPIRE_TOKEN:
        session.fail(channel, expired_text(0))
    else:
        session.fail(channel, fault.message)


def _refused(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
