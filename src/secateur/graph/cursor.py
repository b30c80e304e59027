"""Runs of a program that go on from where they stopped, for every microbatch, within a memory limit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch
from secateur.graph.program import OpOverride, Program

Values = dict[Node, Any]


class ValuesOver(Values):
    """The values of a run, and those of parameters, buffers and constants, which are looked up when they are read.

    Args:
        values: the values of operators and inputs; those that are among the fixed ones are left out.
        fixed: the parameters, buffers and constants by placeholder.
    """

    def __init__(self, values: Values, fixed: Mapping[Node, Any]) -> None:
        super().__init__({node: value for node, value in values.items() if node not in fixed})
        self._fixed = fixed

    def __missing__(self, node: Node) -> Any:
        return self._fixed[node]


@dataclass(frozen=True)
class RunState:
    """The progress of one run of a program on one microbatch.

    Args:
        position: the position of the operator that runs next.
        values: the values that this and later operators read, without parameters, buffers and constants.
    """

    position: int
    values: Values


@dataclass(frozen=True)
class Stage:
    """The progress of all runs on one microbatch."""

    states: tuple[RunState, ...]

    @cached_property
    def bytes(self) -> int:
        """The bytes of the values; a tensor that several runs share counts once."""
        return bytes_of_tensors([list(state.values.values()) for state in self.states])


class ProgramCursor:
    """The values of runs of a program before an operator, for every microbatch.

    Values for which there is no room are computed again, from where there was room last or from the inputs. Memory
    therefore does not grow with the number of examples.

    Args:
        program: the program.
        microbatches: the examples.
    """

    def __init__(self, program: Program, microbatches: Sequence[Batch]) -> None:
        self.program, self.microbatches = program, microbatches
        self._stages: dict[int, Stage] = {}

    @property
    def kept_bytes(self) -> int:
        """The number of bytes that are kept now."""
        return sum(stage.bytes for stage in self._stages.values())

    def start(self, microbatch: int, stops: Sequence[int | None]) -> tuple[RunState, ...]:
        """Return the states from which the runs on a microbatch go on.

        Args:
            microbatch: the number of the microbatch.
            stops: the position that each run is to reach; None for a run that stays where it is.
        """
        stage = self._stages.get(microbatch)
        if stage is not None and not any(_is_beyond(*pair) for pair in zip(stage.states, stops, strict=True)):
            return stage.states
        state = RunState(self.program.first, dict(self.program.bind(self.microbatches[microbatch])))
        return (state,) * len(stops)

    def take(self, microbatch: int, stops: Sequence[int | None]) -> tuple[RunState, ...]:
        """Return the states as `start` does, and keep them no longer, so that a run can free their values."""
        states = self.start(microbatch, stops)
        self._stages.pop(microbatch, None)
        return states

    def keep(self, microbatch: int, states: Sequence[RunState], room: int) -> None:
        """Keep the states of the runs on a microbatch in place of earlier ones, if there is room.

        Args:
            microbatch: the number of the microbatch.
            states: the progress of each run.
            room: the number of bytes that the states of all microbatches may take.
        """
        stage = Stage(tuple(states))
        others = sum(kept.bytes for number, kept in self._stages.items() if number != microbatch)
        if others + stage.bytes <= room:
            self._stages[microbatch] = stage

    def keep_within(self, room: int) -> None:
        """Drop the states of the last microbatches until the others take at most so many bytes."""
        while self._stages and self.kept_bytes > room:
            self._stages.popitem()

    def keep_from(self, other: "ProgramCursor", is_valid: Callable[[tuple[RunState, ...]], bool]) -> None:
        """Keep those states of another cursor over the same program that are valid for this one's runs."""
        self._stages = {microbatch: stage for microbatch, stage in other._stages.items() if is_valid(stage.states)}

    def advance(
        self,
        state: RunState,
        stop: int,
        fixed: Mapping[Node, Any],
        handlers: Mapping[Node, OpOverride] | None = None,
        consume: bool = False,
    ) -> RunState:
        """Run the operators up to a position; a state that has reached it is returned as it is.

        Args:
            state: the progress so far.
            stop: the position of the operator to stop before.
            fixed: the parameters, buffers and constants by placeholder.
            handlers: the overrides of operators.
            consume: whether the values of `state` are used up, so that their memory is free during the run.
        """
        if state.position >= stop:
            return state
        values = ValuesOver(state.values, fixed)
        if consume:
            state.values.clear()
        self.program.run(values, state.position, stop, handlers or {}, keep=self.program.output_nodes)
        return RunState(stop, dict(values))


def bytes_of_tensors(values: Any) -> int:
    """Return the bytes of the tensors in a nested value; a tensor that occurs twice counts once."""
    tensors = {id(leaf): leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _is_beyond(state: RunState, stop: int | None) -> bool:
    return stop is not None and state.position > stop
