"""The program of one module's own code, sliced out of an exported program."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.graph.module_operators import name_operator
from secateur.graph.module_program import (
    Constant,
    InputDevice,
    ModuleProgram,
    ProgramStep,
    StateRef,
    TrainingFlag,
    Value,
    is_reference,
    references,
)
from secateur.graph.operators import arguments
from secateur.graph.recorded_calls import RecordedCall, Recording, UnsupportedCodeError
from secateur.options import kind_text

MOST_ENTRIES = 256
SIZE = "aten.sym_size.int"


class ModuleSlicer:
    """Slices the own code of one module out of a program.

    Args:
        module: the module.
        path: its path in the model.
        recording: the calls in the model's program.
        names: for each node of that program the name that its result gets.
    """

    def __init__(self, module: nn.Module, path: str, recording: Recording, names: Mapping[str, str]) -> None:
        self.module, self.path, self.names = module, path, names
        self.recording, self.program = recording, recording.program
        self.nodes = {node.name: node for node in recording.program.nodes}
        self.copies = recording.copies
        tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
        self.tensors = {id(tensor): name for name, tensor in reversed(tensors)}
        self.steps: list[ProgramStep] = []
        self.available: dict[str, Any] = {}

    def slice(self, call: RecordedCall) -> ModuleProgram:
        """Return the module's program for one of its calls.

        Raises:
            UnsupportedCodeError: its code holds what a module's program can't.
        """
        if call.bound is None or call.output is None:
            raise UnsupportedCodeError("it takes or returns something else than tensors, numbers and lists of them")
        for name in references(call.bound):
            self.available[name] = Value(self._name(name))
        inputs = self._with_references(call.bound)
        for entry in call.body:
            if isinstance(entry, RecordedCall):
                self._call(entry)
            else:
                self._operator(entry)
        output = self._with_references(call.output)
        shapes = {
            self._name(name): tuple(map(self.recording.length, value.shape))
            for name in references(call.bound)
            if isinstance(value := self.nodes[name].meta.get("val"), Tensor)
        }
        return ModuleProgram(inputs, tuple(_with_drops(_needed_steps(self.steps, output), output)), output, shapes)

    def _name(self, node_name: str) -> str:
        return self.names.get(node_name, f"{node_name}'")

    def _call(self, call: RecordedCall) -> None:
        prefix = f"{self.path}." if self.path else ""
        if call.arguments is None or not call.path.startswith(prefix):
            raise UnsupportedCodeError(f"it calls {call.path} with something else than tensors and numbers")
        args, kwargs = self._with_references(call.arguments)
        results = tuple(None if name is None else f"{self._name(name)}" for name in call.results)
        self.steps.append(ProgramStep(call.path.removeprefix(prefix), True, args, kwargs, results))
        for name, result in zip(call.results, results, strict=True):
            if name is not None and result is not None:
                self.available[name] = Value(result)

    def _operator(self, node: Node) -> None:
        """Record an operator; steps that use a node that can't be written fail, others are skipped."""
        if node.name in self.copies:
            return
        try:
            self.steps.append(self._step(node))
        except UnsupportedCodeError as failure:
            self.available[node.name] = failure
            return
        self.available[node.name] = Value(self._name(node.name))

    def _step(self, node: Node) -> ProgramStep:
        name = name_operator(node.target)
        if name is None or not (node.users or name.startswith("aten.sym")):
            raise UnsupportedCodeError(f"{node.target} is not an operator that a module's program may hold")
        args: tuple[Any, ...] = tuple(node.args)
        kwargs = dict(node.kwargs)
        if "dropout" in name and arguments(node).get("train") is False:
            names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
            kwargs.pop("train", None)
            at = names.index("train")
            args = (*args[:at], TrainingFlag(), *args[at + 1 :])
        return ProgramStep(
            name, False, self._with_references(args), self._with_references(kwargs), (self._name(node.name),)
        )

    def _with_references(self, value: Any) -> Any:
        """Replace nodes in arguments by references."""
        if isinstance(value, Node):
            return self._reference(value)
        if isinstance(value, Value):
            return self._reference(self.nodes[value.name])
        if is_reference(value) or value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return value
        if isinstance(value, torch.device):
            return InputDevice()
        if isinstance(value, tuple | list):
            return (
                type(value)(self._with_references(nested) for nested in value)
                if type(value) in (tuple, list)
                else [self._with_references(nested) for nested in value]
            )
        if isinstance(value, dict):
            return {key: self._with_references(nested) for key, nested in value.items()}
        raise UnsupportedCodeError(f"an operator takes {kind_text(value)}")

    def _reference(self, node: Node) -> Any:
        reference = self.available.get(node.name)
        if isinstance(reference, UnsupportedCodeError):
            raise reference
        if reference is None:
            reference = self.available[node.name] = self._outside(node)
        return reference

    def _outside(self, node: Node) -> Any:
        """Return a reference to a value from outside the module's code: its tensors, constants, dynamic sizes."""
        if node in self.program.state_names:
            name = self.tensors.get(id(self.program.state(self.program.state_names[node])))
            if name is None:
                raise UnsupportedCodeError(f"it uses {self.program.state_names[node]}, which belongs to another module")
            return StateRef(name)
        if node in self.program.constants:
            return _constant(self.program.constants[node])
        length = node.meta.get("val")
        if isinstance(length, torch.SymInt):
            return self._size(node, length)
        raise UnsupportedCodeError(f"it uses {node.name}, which is computed elsewhere")

    def _size(self, node: Node, length: torch.SymInt) -> Any:
        """Return a reference to a dynamic size, of one of the inputs or computed from them."""
        for source in list(self.available):
            shape = getattr(self.nodes[source].meta.get("val"), "shape", ())
            for dim, size in enumerate(shape):
                if isinstance(self.available[source], Value) and _same_size(size, length):
                    step = ProgramStep(SIZE, False, (self.available[source], dim), {}, (self._name(node.name),))
                    self.steps.append(step)
                    return Value(self._name(node.name))
        if node.op != "call_function" or node.target is torch.ops.aten.sym_size.int:
            raise UnsupportedCodeError("it uses a size that its inputs do not show")
        self.steps.append(self._step(node))
        return Value(self._name(node.name))


def _same_size(size: Any, length: torch.SymInt) -> bool:
    return isinstance(size, torch.SymInt) and str(size.node.expr) == str(length.node.expr)


def _constant(value: Any) -> Constant:
    if not isinstance(value, Tensor) or value.numel() > MOST_ENTRIES or value.is_complex():
        raise UnsupportedCodeError("it uses a tensor that is neither a parameter nor a buffer")
    return Constant(value.tolist(), str(value.dtype).removeprefix("torch."))


def _needed_steps(steps: Sequence[ProgramStep], output: Any) -> list[ProgramStep]:
    """Select the steps that the output depends on, and the calls of submodules."""
    used_names, kept = set(references(output)), []
    for step in reversed(steps):
        if step.is_call or used_names & {*step.results}:
            kept.append(step)
            used_names.update(references((step.args, step.kwargs)))
    return kept[::-1]


def _with_drops(steps: Sequence[ProgramStep], output: Any) -> Iterator[ProgramStep]:
    """Add to each step the names of the values that no later step reads."""
    last_uses = {name: at for at, step in enumerate(steps) for name in references((step.args, step.kwargs))}
    returned_names = set(references(output))
    for at, step in enumerate(steps):
        unused_names = [name for name, position in last_uses.items() if position == at and name not in returned_names]
        yield replace(step, dropped=tuple(unused_names))
