"""The AGI step: who calls whom, which agent answers, and is there room.

It returns the channel variables the dialplan follows (dialplan/offhook.conf):
OFFHOOK_STATUS   OK | FULL | CLOSED | UNKNOWN
OFFHOOK_UUID     the media port's key, minted here, good once and for ten seconds
OFFHOOK_AUDIO    host:port of the media port
OFFHOOK_NEXT     the fallback; the engine overwrites it over AMI before it closes the line
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from engine.calls.desk import Desk
from engine.calls.state import CallTicket
from engine.config import Agent, RouteSettings, Settings
from engine.errors import AtCapacity
from engine.telephony.admission import Admission
from engine.telephony.agi_server import AgiRequest

log = logging.getLogger(__name__)


class Router:
    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, Agent],
        admission: Admission[CallTicket],
        desk: Desk,
        audio_address: str,
    ) -> None:
        self._settings = settings
        self._agents = agents
        self._admission = admission
        self._desk = desk
        self._audio_address = audio_address

    async def route(self, request: AgiRequest) -> Mapping[str, str]:
        """Answer one AGI request. Runs on the loop and touches no disk."""
        rule = self.rule_for(request.called)
        agent = self.agent_for(request, rule)
        when_full = rule.when_full if rule else "menu"
        if agent is None:
            log.warning("no agent for the called number", extra={"called": request.called})
            return {"OFFHOOK_STATUS": "UNKNOWN", "OFFHOOK_NEXT": when_full}
        if not self._desk.open:
            return {"OFFHOOK_STATUS": "CLOSED", "OFFHOOK_NEXT": when_full}
        try:
            self._desk.check_room(promised=self._admission.pending)
        except AtCapacity:
            log.warning("call refused, all lines in use", extra={"limit": self._desk.limit})
            return {"OFFHOOK_STATUS": "FULL", "OFFHOOK_NEXT": when_full}
        fallback = "hangup" if _is_outbound(request) else agent.fallback
        record = agent.record if rule is None or rule.record is None else rule.record
        ticket = CallTicket(
            agent=agent,
            called=request.called,
            caller_id=request.caller_id,
            caller_name=request.caller_name,
            channel=request.channel,
            direction="outbound" if _is_outbound(request) else "inbound",
            record=record and bool(agent.record_notice),
            fallback=fallback,
        )
        # The status comes last: it says that the others arrived.
        return {
            "OFFHOOK_UUID": self._admission.mint(ticket),
            "OFFHOOK_AUDIO": self._audio_address,
            "OFFHOOK_NEXT": fallback,
            "OFFHOOK_STATUS": "OK",
        }

    def rule_for(self, called: str) -> RouteSettings | None:
        """The exact number first, then the longest matching prefix."""
        best: RouteSettings | None = None
        for rule in self._settings.routes:
            if rule.number == called:
                return rule
            fits = rule.number.endswith("*") and called.startswith(rule.number[:-1])
            if fits and (best is None or len(rule.number) > len(best.number)):
                best = rule
        return best

    def agent_for(self, request: AgiRequest, rule: RouteSettings | None) -> Agent | None:
        """An outbound call names its agent; then the rule; then, with no rules at all, the only agent."""
        if _is_outbound(request):
            job = request.arguments[0] if request.arguments else ""
            return self._agents.get(job.removeprefix("agent="))
        if rule is not None:
            return self._agents.get(rule.agent)
        if not self._settings.routes and len(self._agents) == 1:
            return next(iter(self._agents.values()))
        return None


def _is_outbound(request: AgiRequest) -> bool:
    """A call of ours was answered: `agi://…/outbound,agent=NAME` (dialplan/offhook.conf)."""
    return request.script == "outbound"
