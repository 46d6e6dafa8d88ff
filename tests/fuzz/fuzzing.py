"""What the fuzz targets share: mutation, cutting, and a command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from random import Random


def mutate(random: Random, wire: bytes) -> bytes:
    """The same bytes with a few of them flipped, lost, doubled or foreign; sometimes unharmed."""
    buffer = bytearray(wire)
    for _ in range(random.choice([0, 1, 1, 2, 5])):
        at = random.randrange(len(buffer) + 1)
        match random.randrange(5):
            case 0 if buffer:
                buffer[at % len(buffer)] ^= 1 << random.randrange(8)
            case 1:
                del buffer[at : at + random.randrange(1, 20)]
            case 2:
                buffer[at:at] = buffer[max(0, at - random.randrange(1, 20)) : at]
            case 3:
                buffer[at:at] = random.choice(
                    [b"\0", b"\n", b"\xff" * 3, b'"', b"\\", b"\r\n", b": "]
                )
            case _:
                buffer[at:at] = random.randbytes(random.randrange(1, 8))
    return bytes(buffer)


def cut(random: Random, wire: bytes) -> list[bytes]:
    """The same bytes as a network may deliver them, at most 4096 at a time."""
    chunks = []
    while wire:
        size = random.choice([1, 2, 3, random.randrange(1, 4096)])
        chunks.append(wire[:size])
        wire = wire[size:]
    return chunks


def main(once: Callable[[Random], None]) -> None:
    """Run `once` with a new seed each time; a failure names its seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        try:
            once(Random(seed))
        except BaseException:
            print(f"failed with --seed {seed} --runs 1")
            raise
    print(f"{arguments.runs} runs, no failure")
