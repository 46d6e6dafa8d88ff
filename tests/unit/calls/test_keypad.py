from __future__ import annotations

import asyncio

import pytest

from engine.calls.keypad import Keypad
from engine.media.frame import Digit


class Entries:
    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.pad = Keypad(on_line=lambda keys, at: self.told.append((keys, at)))

    def press(self, keys: str, at: float = 0.0) -> None:
        for index, key in enumerate(keys):
            self.pad.press(Digit(key, at + index * 0.2))


@pytest.fixture
def entries() -> Entries:
    return Entries()


def test_keys_close_together_are_one_entry(entries: Entries) -> None:
    entries.press("12", 1.0)
    entries.pad.tick(2.69)
    assert entries.told == [] and entries.pad.busy
    entries.pad.tick(2.71)
    entries.pad.tick(9.0)
    assert entries.told == [("12", 1.2)] and not entries.pad.busy


def test_the_hash_ends_an_entry_and_alone_it_is_none(entries: Entries) -> None:
    entries.press("#", 1.0)
    entries.pad.tick(1.02)
    entries.press("12#", 2.0)
    entries.pad.tick(2.42)
    entries.press("3", 2.5)
    entries.pad.tick(2.52)
    assert entries.told == [("12", 2.2)]
    entries.pad.tick(4.1)
    assert entries.told == [("12", 2.2), ("3", 2.5)]


def test_what_was_begun_is_forgotten_when_the_call_ends(entries: Entries) -> None:
    entries.press("12")
    entries.pad.close()
    entries.pad.tick(9.0)
    assert entries.told == [] and not entries.pad.busy


@pytest.mark.parametrize(
    ("pressed", "max_digits", "terminator", "collected"),
    [("12#", 20, "#", "12"), ("1*#", 20, "#", "1*"), ("123", 2, "#", "12"), ("1#*", 20, "*", "1#")],
)
async def test_keys_go_to_who_collects_them(
    entries: Entries, pressed: str, max_digits: int, terminator: str, collected: str
) -> None:
    collecting = asyncio.create_task(entries.pad.collect(max_digits, terminator, 60.0))
    await asyncio.sleep(0)
    assert entries.pad.collecting and entries.pad.busy
    entries.press(pressed)
    assert await collecting == collected
    entries.pad.tick(9.0)
    assert entries.told == [] and not entries.pad.collecting


async def test_keys_pressed_too_early_count(entries: Entries) -> None:
    entries.press("12")
    collecting = asyncio.create_task(entries.pad.collect(20, "#", 60.0))
    await asyncio.sleep(0)
    entries.press("3#")
    assert await collecting == "123"


async def test_patience_ends_with_what_there_is(entries: Entries) -> None:
    entries.press("12")
    assert await entries.pad.collect(20, "#", 0.0) == "12"
    assert not entries.pad.collecting


async def test_a_cancelled_collector_takes_no_more_keys(entries: Entries) -> None:
    collecting = asyncio.create_task(entries.pad.collect(20, "#", 60.0))
    await asyncio.sleep(0)
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    entries.press("12#", 1.0)
    entries.pad.tick(1.42)
    assert entries.told == [("12", 1.2)]
