"""Runs of a program in steps: the values are those of one run, whatever is kept on the way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.data.conversion import as_batches
from secateur.graph.cursor import ProgramCursor, RunState, bytes_of_tensors
from secateur.graph.program import Program
from secateur.importance.context import split_microbatches

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cursor() -> ProgramCursor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    network = sc.trace(model, X[:2])
    return ProgramCursor(network.program, split_microbatches(as_batches([X[:5], X[5:]]), torch.device("cpu")))


def advanced(cursor: ProgramCursor, microbatch: int, stop: int, consume: bool = False) -> RunState:
    (state,) = cursor.take(microbatch, (stop,)) if consume else cursor.start(microbatch, (stop,))
    with torch.no_grad():
        return cursor.advance(state, stop, cursor.program.fixed(), consume=consume)


def starts_of(cursor: ProgramCursor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions from which the program runs from now on."""
    starts: list[int] = []
    run: Callable[..., Any] = Program.run

    def noted(self: Program, values: Any, start: int, *rest: Any, **kwargs: Any) -> Any:
        starts.append(start)
        return run(self, values, start, *rest, **kwargs)

    monkeypatch.setattr(Program, "run", noted)
    return starts


@pytest.mark.parametrize("room", [0, 1 << 20])
@pytest.mark.parametrize("consume", [False, True])
def test_steps_give_the_output_of_one_run(cursor: ProgramCursor, room: int, consume: bool) -> None:
    program = cursor.program
    for microbatch, batch in enumerate(cursor.microbatches):
        for stop in range(program.first, len(program.nodes)):
            state = advanced(cursor, microbatch, stop, consume)
            assert not state.values.keys() & program.fixed().keys()
            cursor.keep(microbatch, (state,), room)
        expected = program.forward(batch)
        assert torch.equal(program.finish({**program.fixed(), **state.values}), expected)


def test_a_kept_state_goes_on_and_one_beyond_the_stop_does_not(
    cursor: ProgramCursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, (first, last) = starts_of(cursor, monkeypatch), (cursor.program.first, len(cursor.program.nodes) - 1)
    for stop in (first + 2, last, first + 1):
        cursor.keep(0, (advanced(cursor, 0, stop),), 1 << 20)
    assert starts == [first, first + 2, first]


def test_states_without_room_leave_the_earlier_ones(cursor: ProgramCursor) -> None:
    early = advanced(cursor, 0, cursor.program.first)
    cursor.keep(0, (early,), bytes_of_tensors(list(early.values.values())))
    late = advanced(cursor, 0, cursor.program.first + 1)  # twelve values for each example in place of six
    cursor.keep(0, (late,), cursor.kept_bytes)
    assert cursor.start(0, (len(cursor.program.nodes),)) == (early,)


def test_the_last_microbatches_are_dropped_first(cursor: ProgramCursor) -> None:
    stop = cursor.program.first + 1
    for microbatch in range(2):
        cursor.keep(microbatch, (advanced(cursor, microbatch, stop),), 1 << 20)
    sizes = [5 * 12 * 4, 3 * 12 * 4]
    assert cursor.kept_bytes == sum(sizes)
    cursor.keep_within(sum(sizes) - 1)
    assert cursor.kept_bytes == sizes[0]
    assert cursor.start(1, (stop,))[0].position == cursor.program.first


def test_a_tensor_that_two_runs_share_counts_once(cursor: ProgramCursor) -> None:
    state = advanced(cursor, 0, cursor.program.first + 1)
    cursor.keep(0, (state, state), 1 << 20)
    assert cursor.kept_bytes == 5 * 12 * 4
    assert bytes_of_tensors([X, [X, {"a": X[:1]}], "text"]) == X.numel() * 4 + 6 * 4


def test_a_run_that_stays_where_it_is_needs_no_stop(cursor: ProgramCursor) -> None:
    first = cursor.program.first
    states = advanced(cursor, 0, first + 3), advanced(cursor, 0, first + 1)
    cursor.keep(0, states, 1 << 20)
    assert cursor.start(0, (None, first + 1)) == states
    assert [state.position for state in cursor.start(0, (first + 2, first + 1))] == [first, first]


def test_states_of_another_cursor_are_kept_where_they_are_valid(cursor: ProgramCursor) -> None:
    other, first = ProgramCursor(cursor.program, cursor.microbatches), cursor.program.first
    for microbatch, stop in enumerate((first + 1, first + 3)):
        cursor.keep(microbatch, (advanced(cursor, microbatch, stop),), 1 << 20)
    other.keep_from(cursor, lambda states: states[0].position <= first + 1)
    assert [other.start(microbatch, (None,))[0].position for microbatch in range(2)] == [first + 1, first]
