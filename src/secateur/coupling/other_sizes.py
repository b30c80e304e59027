"""Batches of other sizes than the example's: the model is exported again, and the numbers of that export are used.

The first export alone has units and consumers. A further one is matched with it operator by operator, must have the
same groups of units, and must compute what the model itself computes on the batch; else the batch is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.coupling.grouping import build_groups
from secateur.coupling.label_walk import trace_labels
from secateur.coupling.operator_results import recorded_shapes
from secateur.data.batch import Batch
from secateur.errors import SecateurError
from secateur.graph.contexts import isolated_evaluation, run_module
from secateur.graph.draw_replay import draws_replayed
from secateur.graph.dynamic_shapes import Axes
from secateur.graph.export import export_fresh
from secateur.graph.export_matching import Matching
from secateur.graph.program import Program
from secateur.graph.resized_calls import ResizedCalls
from secateur.graph.settled_numbers import MismatchError
from secateur.utils.devices import comparable_arithmetic
from secateur.utils.failure_text import failure_text

MOST_EXPORTS = 16
MOST_SIZES = 4096  # of which the numbers are kept

Compare = Callable[[Any, Any, str], float]
Signature = tuple[Any, ...]


def with_other_sizes(program: Program, model: nn.Module, example: Batch, compare: Compare) -> Program:
    """Return a program that exports the model again for batches of other sizes than the example's.

    Args:
        program: the export of the model.
        model: the model.
        example: the example that it was exported with.
        compare: raises a `SecateurError` where an output is not the expected one.
    """
    return replace(program, other_sizes=Resizer(program, model, example, compare))


@dataclass(frozen=True)
class Resizer:
    """Further exports of a model and their arguments of operators for each size of inputs.

    Args:
        program: the first export.
        model: the model.
        example: the example that it was exported with.
        compare: raises a `SecateurError` where an output is not the expected one.
    """

    program: Program
    model: nn.Module
    example: Batch
    compare: Compare
    _exports: list[Matching] = field(default_factory=list, repr=False)
    _calls: dict[Signature, ResizedCalls | str] = field(default_factory=dict, repr=False)

    def arguments_for(self, batch: Batch, leaves: Sequence[Any], reason: str) -> ResizedCalls:
        """Return the arguments of the program's operators for a batch's inputs.

        Args:
            batch: the batch.
            leaves: its inputs, flat.
            reason: the reason why the program does not hold for it.

        Raises:
            DataError: no further export holds for it either, or there are too many of these.
        """
        key = self._signature(leaves)
        if key not in self._calls:
            if len(self._calls) >= MOST_SIZES:
                self._calls.clear()
            self._calls[key] = self._find_calls(batch, leaves, reason)
        calls = self._calls[key]
        if isinstance(calls, str):
            raise self.program.wrong_sizes(leaves, calls)
        return calls

    def check_single(self, batch: Batch, leaves: Sequence[Any]) -> None:
        """Check that the program, exported with two examples, computes what the model computes for one.

        Raises:
            DataError: it does not.
        """
        key = self._signature(leaves)
        if key not in self._calls:
            no_changes = ResizedCalls({}, {})
            self._calls[key] = self._difference(batch, no_changes) or no_changes
        outcome = self._calls[key]
        if isinstance(outcome, str):
            raise self.program.wrong_sizes(leaves, outcome)

    def _signature(self, leaves: Sequence[Any]) -> Signature:
        """Return all sizes that numbers in the program depend on: all but that of the batch, where it may vary."""
        shapes = []
        for leaf, recorded_lengths in zip(leaves, self.program.shapes.recorded, strict=True):
            if not isinstance(leaf, Tensor):
                shapes.append(repr(leaf))
                continue
            has_lengths = isinstance(recorded_lengths, tuple) and len(recorded_lengths) == leaf.dim()
            axes = recorded_lengths if has_lengths else leaf.shape
            batch_symbol = self.program.shapes.batched
            free_axes = (
                batch_symbol is not None and axis == batch_symbol and size > 1
                for axis, size in zip(axes, leaf.shape, strict=True)
            )  # fmt: skip
            shapes.append(str([None if is_free else size for is_free, size in zip(free_axes, leaf.shape, strict=True)]))
        return tuple(shapes)

    def _find_calls(self, batch: Batch, leaves: Sequence[Any], reason: str) -> ResizedCalls | str:
        """Return the calls, or the reason why there are none."""
        for matching in self._exports:
            if matching.other.shapes.refusal(leaves) is None:
                try:
                    calls = matching.at(leaves)
                except MismatchError:
                    continue
                difference = self._difference(batch, calls)
                return calls if difference is None else difference
        if len(self._exports) >= MOST_EXPORTS:
            return f"{MOST_EXPORTS} exports of it, one for each size so far, are the most"
        return self._export_calls(batch, leaves, reason)

    def _export_calls(self, batch: Batch, leaves: Sequence[Any], reason: str) -> ResizedCalls | str:
        """Return the calls by a further export, with axes that may vary, else with those sizes alone."""
        example = self._example(batch)
        failure = ""
        for axes in (self._varying_axes(leaves), ()) if not any(map(self._is_fixed, self._exports)) else ((),):
            try:
                other_program = export_fresh(self.model, example, axes)
                self._check_batched(other_program)
                matching = Matching(self.program, other_program)
                refusal = other_program.shapes.refusal(leaves)
                if refusal is not None:
                    raise MismatchError(f"another export {refusal}")
                self._check_groups(other_program, example)
                calls = matching.at(leaves)
            except MismatchError as mismatch:
                failure = failure or f"exported at the other sizes, {mismatch}"
                continue
            except SecateurError as error:
                return f"its program {reason}; at the other sizes {error}"
            difference = self._difference(example, calls) or (
                self._difference(batch, calls) if self.program.shapes.is_single(leaves) else None
            )
            if difference is None:
                self._exports.append(matching)
                return calls
            failure = failure or difference
        return f"its program {reason}; {failure}"

    def _is_fixed(self, matching: Matching) -> bool:
        """Return whether a further export has no varying axis beyond those of the first."""
        return len(matching.other.shapes.ranges) <= len(self.program.shapes.ranges)

    def _example(self, batch: Batch) -> Batch:
        """Return two examples, as a batch of one is no different from a fixed size."""
        size = batch.size
        if self.program.batched is None or not all(t.dim() and t.shape[0] == size for t in batch.tensors):
            return batch
        return batch.map(lambda tensor: torch.cat([tensor, tensor]) if size == 1 else tensor[:2])

    def _varying_axes(self, leaves: Sequence[Any]) -> Axes:
        """Return the axes of each input that may vary: those of the first export, and those that differ from it."""
        varying_axes: list[frozenset[int]] = []
        for leaf, recorded_lengths in zip(leaves, self.program.shapes.recorded, strict=True):
            if isinstance(leaf, Tensor) and isinstance(recorded_lengths, tuple) and len(recorded_lengths) == leaf.dim():
                axes = enumerate(zip(recorded_lengths, leaf.shape, strict=True))
                varying_axes.append(
                    frozenset(axis for axis, (was, size) in axes if not isinstance(was, int) or was != size)
                )
            else:
                varying_axes.append(frozenset())
        return varying_axes

    def _check_batched(self, other_program: Program) -> None:
        """Check that the batch size may vary in a further export.

        Raises:
            MismatchError: it may vary in the first export alone.
        """
        if self.program.batched is not None and other_program.batched is None:
            raise MismatchError("the batch size is fixed there")

    def _check_groups(self, other_program: Program, example: Batch) -> None:
        """Check that a further export has the same groups of units.

        Raises:
            MismatchError: other units are removed together.
        """
        if _groups_of(self.program, self.example) != _groups_of(other_program, example):
            raise MismatchError("other units go together there")

    @comparable_arithmetic()
    def _difference(self, batch: Batch, calls: ResizedCalls) -> str | None:
        """Describe how the program with these numbers differs from the model; None where both agree."""

        def run() -> Any:
            values = {**self.program.fixed(), **self._bound(batch), self.program.resized: calls}
            nodes = len(self.program.nodes) - 1
            return self.program.run(values, self.program.first, nodes, {}, keep=self.program.output_nodes)

        with isolated_evaluation(self.model):
            try:
                with draws_replayed(self.program.draws, run):
                    expected = run_module(self.model, batch)
                self.compare(self.program.finish(run()), expected, type(self.model).__name__)
            except SecateurError as failure:
                return f"its program is not right there: {failure}"
            except Exception as failure:  # noqa: BLE001 operators raise many types on inputs of a wrong shape
                return f"its program can't be run there: {failure_text(failure)}"
        return None

    def _bound(self, batch: Batch) -> Mapping[Any, Any]:
        leaves = pytree.tree_leaves((batch.args, dict(batch.kwargs)))
        return dict(zip(self.program.inputs, leaves, strict=True))


def _groups_of(program: Program, example: Batch) -> frozenset[frozenset[tuple[str, int, tuple[int, ...]]]]:
    """Return the groups of units that label tracing finds: the entries that each owns of every tensor."""
    units = build_groups(trace_labels(program, recorded_shapes(program, example)))
    return frozenset(
        frozenset((axis.tensor, axis.axis, tuple((axis.units - group.offset).tolist())) for axis in group.members)
        for group in units.groups
    )
