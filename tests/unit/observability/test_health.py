from __future__ import annotations

from engine.observability.health import Health


def test_the_worst_part_decides() -> None:
    up = {"asterisk": True, "panel": True}
    health = Health()
    assert health.ready and health.report()["status"] == "ok"
    health.add("asterisk", lambda: up["asterisk"])
    health.add("panel", lambda: up["panel"], required=False)
    assert health.report()["status"] == "ok"
    up["panel"] = False
    assert health.ready and health.report()["status"] == "degraded"
    up["asterisk"] = False
    report = health.report()
    assert not health.ready and report["status"] == "down" and report["ready"] is False
    assert report["checks"]["asterisk"]["ok"] is False
    up["asterisk"] = up["panel"] = True
    assert health.ready and health.report()["status"] == "ok"


def test_a_probe_that_raises_is_a_part_that_is_down() -> None:
    health = Health()
    health.add("database", lambda: bool(1 / 0))
    assert not health.ready
    assert health.report()["checks"]["database"]["ok"] is False
