"""Which conversations share the next step of a language model. Arithmetic alone; no model here.

A step evaluates a batch: one token for each reply that is being written, and a stretch of prompt for
those being read. A batch of eight replies takes a few times as long as one, so replies ride together;
a long prompt is read in stretches, so that the others write on between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WRITERS = 8
"""Replies that write in one step. More gain little and slow each of them."""
CROWD = 4
"""While so many callers wait for their words, guesses stand back…"""
PATIENCE = 8
"""…but for one step in so many, where those served longest ago go first."""
READ_ALONE = 96
"""Prompt tokens in a step while nobody writes: some tenth of a second on two cores."""
READ_BESIDE = 32
"""…and while somebody does."""


@dataclass(frozen=True, slots=True)
class Want:
    """What one reply needs next. A caller waits for those of priority 0; the others are guesses."""

    number: int
    priority: int
    pending: int
    """Tokens to evaluate before it can go on: 1 while it writes, more while its prompt is read."""
    arrived: int
    served: int = -1
    """The latest step it had a share in."""


@dataclass(frozen=True, slots=True)
class Share:
    """`tokens` of this reply's pending ones belong to the step."""

    number: int
    tokens: int


def plan(wants: Sequence[Want], step: int) -> list[Share]:
    """The shares of step number `step`. Not empty while anybody wants; everybody is served in the end."""
    if step % PATIENCE == PATIENCE - 1:
        order = sorted(wants, key=lambda want: (want.served, want.arrived))
    else:
        order = sorted(wants, key=lambda want: (want.priority, want.served, want.arrived))
        if order and sum(want.priority == 0 for want in order) >= CROWD:
            order = [want for want in order if want.priority == 0]
    shares = [Share(want.number, 1) for want in order if want.pending == 1][:WRITERS]
    room = READ_BESIDE if shares else READ_ALONE
    for want in order:
        if want.pending > 1 and room > 0:
            shares.append(Share(want.number, min(want.pending, room)))
            room -= shares[-1].tokens
    return shares
