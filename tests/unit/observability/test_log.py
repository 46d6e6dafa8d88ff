from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from engine.observability.log import configure, in_call

log = logging.getLogger("engine.test")


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_its_fields_and_no_personal_data() -> None:
    stream = io.StringIO()
    configure("info", as_json=True, stream=stream)
    log.warning(
        "call refused", extra={"called": "+14155550123", "limit": 8, "data": {"text": "hi"}}
    )
    (line,) = lines(stream)
    assert line.pop("at")
    assert line == {
        "level": "warning",
        "logger": "engine.test",
        "message": "call refused",
        "called": "***23",
        "limit": 8,
        "data": {"text": "[2 characters]"},
    }


def test_errors_and_foreign_messages_are_masked_too() -> None:
    stream = io.StringIO()
    configure("info", as_json=True, stream=stream)
    try:
        raise ValueError("no route to +14155550123")
    except ValueError:
        logging.getLogger("library").exception("could not dial %s", "+14155550123")
    (line,) = lines(stream)
    assert "4155550" not in stream.getvalue()
    assert "ValueError: no route to ***23" in str(line["error"])


def test_a_field_cannot_replace_the_message() -> None:
    stream = io.StringIO()
    configure("info", as_json=True, stream=stream)
    log.info("sentence", extra={"level": "forged", "logger": "forged"})
    assert lines(stream)[0]["level"] == "info"


async def test_lines_of_a_call_carry_its_id_also_from_tasks() -> None:
    stream = io.StringIO()
    configure("info", as_json=True, stream=stream)

    async def work() -> None:
        log.info("inside")

    with in_call("call-1"):
        await asyncio.create_task(work())
        log.info("another", extra={"call_id": "call-2"})
    log.info("outside")
    assert [line.get("call_id") for line in lines(stream)] == ["call-1", "call-2", None]


def test_a_console_line_stays_one_line() -> None:
    stream = io.StringIO()
    configure("info", stream=stream)
    log.info("peer said something", extra={"reason": "a\nFORGED \x1b[31m", "code": 5})
    (line,) = stream.getvalue().splitlines()
    assert "INFO" in line and "engine.test: peer said something" in line and "code=5" in line
    assert "\x1b" not in line


def test_configuring_again_replaces_and_the_level_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("debug", stream=first)
    configure("warning", stream=second)
    log.info("quiet")
    log.error("loud")
    assert (
        first.getvalue() == "" and "loud" in second.getvalue() and "quiet" not in second.getvalue()
    )
