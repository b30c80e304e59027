"""Programs of a model's modules, built on request: one further export shows the calls of each module."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.coupling.shape_literals import ShapeLiteral
from secateur.data.batch import Batch
from secateur.errors import SecateurError
from secateur.graph.call_recorder import recording
from secateur.graph.dynamic_shapes import Axes
from secateur.graph.export import export_fresh
from secateur.graph.model_copies import copy_model
from secateur.graph.module_program import ModuleProgram, Value, common_lengths
from secateur.graph.module_slicer import ModuleSlicer
from secateur.graph.operators import module_path
from secateur.graph.paired_operators import PairedOperators
from secateur.graph.program import Program
from secateur.graph.recorded_calls import Recording, UnsupportedCodeError, calls_of, read_recording

SAMPLES = 32
UNEQUAL = "Unequality"


class ModuleSlices:
    """The programs of a model's modules.

    Args:
        model: the model whose program was exported; it is not changed.
        program: its program.
        example: the example that it was exported with.
    """

    def __init__(self, model: nn.Module, program: Program, example: Batch) -> None:
        self.model, self.exported, self.example = model, program, example
        self._programs: dict[str, ModuleProgram | None] = {}
        self._recorded: _RecordedCalls | None = None
        self._was_recorded = False

    def program_of(self, path: str, sizes: Sequence[ShapeLiteral]) -> ModuleProgram | None:
        """Return the program of one module, None where its code is no single program for all of its calls.

        Args:
            path: the module's path.
            sizes: the numbers in the model's program that count units.
        """
        if path not in self._programs:
            try:
                self._programs[path] = self._program_of(path, sizes)
            except UnsupportedCodeError:
                self._programs[path] = None
        return self._programs[path]

    def _program_of(self, path: str, sizes: Sequence[ShapeLiteral]) -> ModuleProgram:
        module = self.model.get_submodule(path)
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise UnsupportedCodeError("hooks change its inputs or results")
        recorded_once = self._record_once(sizes)
        if recorded_once is None or path not in recorded_once.paths:
            raise UnsupportedCodeError("its calls were not recorded, or it contains no number that counts units")
        recording, names = recorded_once.recording, recorded_once.names
        calls = [call for call in calls_of(recording.root) if call.path == path]
        if not calls:
            raise UnsupportedCodeError("it is not called")
        programs = [ModuleSlicer(module, path, recording, names).slice(call) for call in calls]
        unit_labels = _units_by_operator(sizes)
        first_program = programs[0]
        if any(not _calls_agree(first_program, other, unit_labels) for other in programs[1:]):
            raise UnsupportedCodeError("its calls differ")
        shapes = dict(first_program.shapes)
        for other in programs[1:]:
            for name, lengths in zip(shapes, other.shapes.values(), strict=True):
                shapes[name] = common_lengths(shapes[name], lengths)
        return replace(first_program, shapes=shapes)

    def _record_once(self, sizes: Sequence[ShapeLiteral]) -> "_RecordedCalls | None":
        """Return the calls in the model and the names of their operators, which the first request records."""
        if not self._was_recorded:
            self._was_recorded = True
            with suppress(UnsupportedCodeError):
                self._recorded = self._record_any(frozenset(module_path(size.node) for size in sizes))
        return self._recorded

    def _record_any(self, paths: frozenset[str]) -> "_RecordedCalls":
        """Record the calls with all lengths that may vary, or with those of the example.

        Raises:
            UnsupportedCodeError: both exports fail, or give another program.
        """
        free = [
            [axis for axis, length in enumerate(leaf.shape) if length > 1] if isinstance(leaf, Tensor) else []
            for leaf in pytree.tree_leaves((self.example.args, self.example.kwargs))
        ]
        try:
            return self._record(free, paths)
        except UnsupportedCodeError:
            return self._record([], paths)

    def _record(self, axes: Axes, paths: frozenset[str]) -> "_RecordedCalls":
        """Record the calls in a further export.

        Args:
            axes: the axes of the inputs that may vary besides the batch, none for the lengths of the example.
            paths: the modules that may need a program.

        Raises:
            UnsupportedCodeError: the export fails, or gives another program.
        """
        tensors = (*self.model.parameters(), *self.model.buffers())
        double = copy_model(self.model, {id(tensor): tensor for tensor in tensors})
        try:
            with torch.random.fork_rng(devices=[]), recording(double, paths) as events:
                marked_program = export_fresh(double, self.example, axes)
        except SecateurError as failure:
            raise UnsupportedCodeError(str(failure)) from failure
        leaves = pytree.tree_leaves((self.example.args, self.example.kwargs))
        is_fixed = bool(axes) and not _holds_for_others(marked_program, leaves)
        if is_fixed and marked_program.batched is None:
            raise UnsupportedCodeError("it holds for one size of the batch only")
        calls = read_recording(marked_program, events, is_fixed)
        names = PairedOperators(marked_program, self.exported, calls.copies).names()
        if names is None:
            raise UnsupportedCodeError("a second export gave another program")
        return _RecordedCalls(calls, names, paths)


@dataclass(frozen=True)
class _RecordedCalls:
    """The calls that a further export recorded.

    Args:
        recording: the calls.
        names: for the name of each of its operators that of the same operator in the first export.
        paths: the modules whose calls were recorded.
    """

    recording: Recording
    names: Mapping[str, str]
    paths: frozenset[str]


def _holds_for_others(program: Program, leaves: Sequence[Any]) -> bool:
    """Return whether the conditions that an export assumed hold for other sizes as well, from half to four times.

    Torch itself compares nearly every size with 1, where it would be broadcast: these conditions do not count.
    """
    guards = [guard for guard in program.shapes.guards if guard.func.__name__ != UNEQUAL or guard.args[1] not in (0, 1)]
    sizes = program.shapes.sizes(leaves)
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES if guards else 0):
        others = {symbol: int(generator.integers(max(size // 2, 2), 4 * size + 1)) for symbol, size in sizes.items()}
        if any(not bool(guard.subs(others)) for guard in guards):
            return False
    return True


def _units_by_operator(sizes: Sequence[ShapeLiteral]) -> dict[str, dict[tuple[str, int | None], Tensor]]:
    by_operator: defaultdict[str, dict[tuple[str, int | None], Tensor]] = defaultdict(dict)
    for size in sizes:
        by_operator[size.node.name][size.argument, size.position] = size.units
    return by_operator


def _calls_agree(
    first: ModuleProgram, other: ModuleProgram, unit_labels: Mapping[str, Mapping[tuple[str, int | None], Tensor]]
) -> bool:
    """Return whether two calls compute the same, with numbers that count the same units."""
    if _without_names(first) != _without_names(other):
        return False
    for a, b in zip(first.operators, other.operators, strict=True):
        here, there = unit_labels.get(a, {}), unit_labels.get(b, {})
        if here.keys() != there.keys() or any(not torch.equal(here[key], there[key]) for key in here):
            return False
    return True


def _without_names(program: ModuleProgram) -> Any:
    """Return the program with numbers in place of the names of its values."""
    numbers: dict[str, int] = {}

    def with_number(leaf: Any) -> Any:
        return numbers.setdefault(leaf.name, len(numbers)) if isinstance(leaf, Value) else leaf

    def without_name(value: Any) -> Any:
        return pytree.tree_map(with_number, value, is_leaf=lambda leaf: isinstance(leaf, Value))

    steps = []
    inputs = without_name(dict(program.inputs))
    for step in program.steps:
        args = without_name((step.args, dict(step.kwargs)))
        results = [result and numbers.setdefault(result, len(numbers)) for result in step.results]
        steps.append((step.operator, step.is_call, args, results))
    return inputs, steps, without_name(program.output)
