"""Who shares a step of the language model: nobody starves, callers who wait go first."""

from hypothesis import given
from hypothesis import strategies as st

from engine.inference.batching import (
    CROWD,
    PATIENCE,
    READ_ALONE,
    READ_BESIDE,
    WRITERS,
    Share,
    Want,
    plan,
)

wants = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(st.just(1), st.integers(2, 700))),
    min_size=1,
    max_size=40,
).map(
    lambda raw: [
        Want(number, priority, pending, arrived=number)
        for number, (priority, pending) in enumerate(raw)
    ]
)


@given(wants, st.integers(0, 100))
def test_a_step_holds_somebody_and_nobody_twice(some: list[Want], step: int) -> None:
    shares = plan(some, step)
    by_number = {want.number: want for want in some}
    assert shares
    assert len({share.number for share in shares}) == len(shares)
    for share in shares:
        assert 1 <= share.tokens <= by_number[share.number].pending
    written = sum(by_number[share.number].pending == 1 for share in shares)
    read = sum(share.tokens for share in shares if by_number[share.number].pending > 1)
    assert written <= WRITERS
    assert read <= (READ_BESIDE if written else READ_ALONE)


@given(wants)
def test_everybody_is_served_in_the_end(some: list[Want]) -> None:
    """Writers that never finish beside readers of long prompts: all readers finish, all writers go on."""
    left = {want.number: want.pending for want in some}
    served = dict.fromkeys(left, -1)
    turns = dict.fromkeys(left, 0)
    longest = sum(left.values())
    for step in range((longest // READ_BESIDE + len(some) + 2) * PATIENCE):
        now = [
            Want(want.number, want.priority, left[want.number], want.arrived, served[want.number])
            for want in some
        ]
        for share in plan(now, step):
            served[share.number] = step
            turns[share.number] += 1
            left[share.number] = max(1, left[share.number] - share.tokens)
    assert all(turns.values())
    assert set(left.values()) == {1}


def test_two_replies_and_a_prompt_ride_together() -> None:
    some = [Want(0, 0, 1, 0), Want(1, 1, 1, 1), Want(2, 0, 500, 2)]
    assert plan(some, 0) == [Share(0, 1), Share(1, 1), Share(2, READ_BESIDE)]


def test_a_prompt_alone_is_read_in_longer_stretches() -> None:
    assert plan([Want(0, 0, 500, 0)], 0) == [Share(0, READ_ALONE)]


def test_guesses_stand_back_in_a_crowd_but_not_for_ever() -> None:
    crowd = [Want(number, 0, 1, number, served=5) for number in range(CROWD)]
    guess = Want(99, 1, 1, 99)
    assert Share(99, 1) not in plan([*crowd, guess], 0)
    assert Share(99, 1) in plan([*crowd, guess], PATIENCE - 1)
    assert Share(99, 1) in plan([*crowd[1:], guess], 0)


def test_more_writers_than_fit_take_turns() -> None:
    some = [Want(number, 0, 1, number) for number in range(WRITERS + 3)]
    first = plan(some, 0)
    later = [
        Want(want.number, 0, 1, want.arrived, served=0 if Share(want.number, 1) in first else -1)
        for want in some
    ]
    assert {share.number for share in plan(later, 1)} >= {WRITERS, WRITERS + 1, WRITERS + 2}
