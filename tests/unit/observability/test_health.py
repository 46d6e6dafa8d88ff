from __future__ import annotations

from engine.observability.health import Health


def state(health: Health) -> tuple[bool, str]:
    report = health.report()
    assert report["ready"] is health.ready
    return health.ready, report["status"]


def test_the_worst_part_decides() -> None:
    up = {"asterisk": True, "panel": True}
    health = Health()
    assert state(health) == (True, "ok")
    health.add("asterisk", lambda: up["asterisk"])
    health.add("panel", lambda: up["panel"], required=False)
    assert state(health) == (True, "ok")
    up["panel"] = False
    assert state(health) == (True, "degraded")
    up["asterisk"] = False
    assert state(health) == (False, "down")
    assert health.report()["checks"]["asterisk"]["ok"] is False
    up["asterisk"] = up["panel"] = True
    assert state(health) == (True, "ok")


def test_a_probe_that_raises_is_a_part_that_is_down() -> None:
    health = Health()
    health.add("database", lambda: bool(1 / 0))
    assert not health.ready
    assert health.report()["checks"]["database"]["ok"] is False
