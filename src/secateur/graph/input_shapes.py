"""The inputs that an exported program accepts: its fixed sizes, and the conditions on its dynamic sizes.

What the model's code computed from a fixed size is a number in the program, and a branch that it took on a size that
may vary is gone from it. So every batch is checked against both before the program runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

Sizes = Mapping[Any, int]


@dataclass(frozen=True)
class InputShapes:
    """The sizes of an exported program's inputs.

    Args:
        recorded: of each input its axes, as numbers or sympy expressions, or its value where it is no tensor.
        guards: conditions (sympy) that the export took for granted.
        ranges: the least and the largest value of each symbol.
        batched: the symbol that stands for the batch size, or None where that is fixed.
    """

    recorded: tuple[Any, ...]
    guards: tuple[Any, ...]
    ranges: Mapping[Any, Any]
    batched: Any
    _outcomes: dict[tuple[tuple[str, int], ...], str | None] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(inputs: Sequence[Node], ranges: Mapping[Any, Any], batched: str | None) -> "InputShapes":
        """Read the sizes from the program's placeholders."""
        recorded_shapes = tuple(_recorded_shape(node.meta.get("val", Unrecorded)) for node in inputs)
        symbolic = [
            length for node in inputs if isinstance(node.meta.get("val"), Tensor)
            for length in node.meta["val"].shape if isinstance(length, torch.SymInt)
        ]  # fmt: skip
        environment = symbolic[0].node.shape_env if symbolic else None
        guards = () if environment is None else tuple(environment.replace(guard.expr) for guard in environment.guards)
        symbols = {symbol for length in symbolic for symbol in length.node.expr.free_symbols}
        conditions = tuple(
            dict.fromkeys(guard for guard in guards if guard.free_symbols and guard.free_symbols <= symbols)
        )
        return InputShapes(
            recorded_shapes, conditions, {symbol: ranges[symbol] for symbol in symbols if symbol in ranges},
            next((symbol for symbol in symbols if str(symbol) == batched), None),
        )  # fmt: skip

    def sizes(self, leaves: Sequence[Any]) -> Sizes:
        """Return the value of each symbol in a batch's inputs."""
        values: dict[Any, int] = {}
        for leaf, axes in zip(leaves, self.recorded, strict=True):
            if isinstance(leaf, Tensor) and isinstance(axes, tuple) and len(axes) == leaf.dim():
                values |= {axis: size for axis, size in zip(axes, leaf.shape, strict=True) if _is_symbol(axis)}
        return values

    def refusal(self, leaves: Sequence[Any]) -> str | None:
        """Return the reason why the program does not accept a batch's inputs; None if it does.

        A batch of one example counts as one of two, which is what exports are made with: torch takes it for granted
        that a size that may vary is not 1. Whether the program is right for it, only running the model tells.
        """
        sizes = self.sizes(leaves)
        for leaf, axes in zip(leaves, self.recorded, strict=True):
            reason = _difference(leaf, axes, sizes)
            if reason is not None:
                return reason
        if self.batched is not None and sizes.get(self.batched) == 1:
            firsts = {axes[0] for axes in self.recorded if isinstance(axes, tuple) and axes and _is_symbol(axes[0])}
            sizes = {symbol: 2 if symbol in firsts and size == 1 else size for symbol, size in sizes.items()}
        return self._broken(sizes)

    def is_single(self, leaves: Sequence[Any]) -> bool:
        """Return whether the batch size is dynamic and the batch has one example."""
        return self.sizes(leaves).get(self.batched) == 1

    def _broken(self, sizes: Sizes) -> str | None:
        """Return the first condition that does not hold."""
        key = tuple(sorted((str(symbol), size) for symbol, size in sizes.items()))
        if key not in self._outcomes:
            self._outcomes[key] = self._first_broken(sizes)
        return self._outcomes[key]

    def _first_broken(self, sizes: Sizes) -> str | None:
        for symbol, bounds in self.ranges.items():
            if symbol in sizes and not bounds.lower <= sizes[symbol] <= bounds.upper:
                return f"holds for sizes from {bounds.lower} to {bounds.upper}, not for {sizes[symbol]}"
        for guard in self.guards:
            if not bool(guard.subs(sizes)):
                return f"was traced on the condition {guard}, which {_sizes_text(sizes)} does not meet"
        return None


class Unrecorded:
    """A placeholder for an input whose value the export did not record."""


def evaluate_length(length: Any, sizes: Sizes) -> Any:
    """Evaluate a number that the export recorded, at given sizes of its symbols."""
    if isinstance(length, torch.SymInt):
        return int(length.node.expr.subs(sizes))
    if isinstance(length, torch.SymFloat):
        return float(length.node.expr.subs(sizes))
    return bool(length.node.expr.subs(sizes)) if isinstance(length, torch.SymBool) else length


def _recorded_shape(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return tuple(_simple(axis.node.expr) if isinstance(axis, torch.SymInt) else int(axis) for axis in value.shape)


def _simple(expression: Any) -> Any:
    return int(expression) if expression.is_number else expression


def _is_symbol(axis: Any) -> bool:
    return bool(getattr(axis, "is_symbol", False))


def _difference(leaf: Any, axes: Any, sizes: Sizes) -> str | None:
    if not isinstance(leaf, Tensor) or not isinstance(axes, tuple):
        is_same = axes is Unrecorded or axes is leaf or (not isinstance(leaf, Tensor) and bool(axes == leaf))
        return None if is_same else f"fixes the value of that input at {axes!r}"
    if len(axes) != leaf.dim():
        return f"takes {len(axes)} axes there"
    for axis, (recorded_length, size) in enumerate(zip(axes, leaf.shape, strict=True)):
        expected_length = recorded_length if isinstance(recorded_length, int) else int(recorded_length.subs(sizes))
        if expected_length != size:
            return f"fixes axis {axis} of that input at {expected_length}"
    return None


def _sizes_text(sizes: Sizes) -> str:
    return ", ".join(f"{symbol} = {size}" for symbol, size in sizes.items())
