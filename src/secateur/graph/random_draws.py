"""Random numbers that a forward draws: recorded in one run, and replayed in another.

A cut network draws fewer numbers than the dense one, so equal seeds do not give it the same ones: it gets what the
dense network drew, without the entries of removed units.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.fx import Node
from torch.overrides import TorchFunctionMode


def function_name(func: Any) -> str:
    """Return the name of an operator without its overload."""
    return str(func.overloadpacket.__name__)


def is_draw(node: Node) -> bool:
    """Return whether an operator of a program draws random numbers."""
    return node.op == "call_function" and draws_numbers(node.target, node.args, node.kwargs)


def draws_numbers(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call draws random numbers; an idle dropout does not."""
    if torch.Tag.nondeterministic_seeded not in getattr(func, "tags", ()):
        return False
    arguments = func._schema.arguments
    values = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    values |= {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
    rates = [values[name] for name in ("dropout", "dropout_p", "p") if name in values]
    training = values.get("train", values.get("training", True))
    return training is not False and not any(isinstance(rate, int | float) and rate == 0 for rate in rates)


def draw_behind(node: Node) -> str | None:
    """Return the operator that drew an operand of a node, if the operand depends only on draws and sizes."""
    return next((name for operand in node.all_input_nodes if (name := _draw_alone(operand)) is not None), None)


def _draw_alone(node: Node) -> str | None:
    names, waiting = [], [node]
    while waiting:
        current = waiting.pop()
        if not isinstance(current.meta.get("val"), Tensor):  # a size
            continue
        if current.op != "call_function":
            return None
        if is_draw(current):
            names.append(function_name(current.target))
        waiting += current.all_input_nodes
    return names[0] if names else None


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Let torch draw from a seed within a context; restore its generators on leaving."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        _seed_generators(seed)
        yield


def _seed_generators(seed: int) -> None:
    """Seed the generators of the processor and of the accelerators in use.

    For those that are not in use, `torch.manual_seed` keeps the seed until they are, which changes what the user draws
    there, and each time writes the whole stack as a text, which takes longer than a small network does.
    """
    torch.default_generator.manual_seed(seed)
    torch.mps.manual_seed(seed)
    for accelerator in (torch.cuda, torch.xpu, torch.mtia):
        if accelerator.is_initialized():
            accelerator.manual_seed_all(seed)


class _WithoutGenerators(TorchFunctionMode):
    """A mode in which random operators get no `generator=None`, which does not support dynamic sizes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        if func in FACTORIES and keywords.get("generator", self) is None:
            del keywords["generator"]
        return func(*args, **keywords)


FACTORIES = (torch.randn, torch.rand, torch.randint, torch.randperm, torch.randn_like, torch.rand_like)


@contextmanager
def drawing_by_size() -> Iterator[None]:
    """Let an export accept random operators with dynamic sizes whose generator is None, within a context.

    Nor do `torch.distributions` check their arguments: the values in a tensor can't be looked at in an export.
    """
    with _WithoutGenerators(), patch.object(Distribution, "_validate_args", False):
        yield


@dataclass(frozen=True, eq=False)
class Draw:
    """The units that own the entries of a draw.

    Args:
        node: the operator.
        units: tensors that broadcast to its shape, with the unit of each entry, -1 where it is never cut.
    """

    node: Node
    units: tuple[Tensor, ...]

    def renumbered(self, unit_number: Callable[[Tensor], Tensor]) -> "Draw":
        """Return the draw after units were renumbered."""
        return replace(self, units=tuple(unit_number(units) for units in self.units))

    def kept_entries(self, values: Tensor, shape: torch.Size, mask: Tensor) -> Tensor:
        """Select the entries of kept units, in the shape that the cut network draws.

        Args:
            values: the numbers that the dense network drew.
            shape: the shape that the cut network draws.
            mask: the kept units (units + 1,).
        """
        is_kept = torch.ones(values.shape, dtype=torch.bool)
        for units in self.units:
            is_kept &= mask[units]
        return values[is_kept.to(values.device)].view(shape)
