"""The operators that the program of a module may use, by name: torch's own, and arithmetic on sizes."""

import math
import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from secateur.errors import StorageError

ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    f"operator.{function.__name__}": function
    for function in (
        operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod, operator.neg,
        operator.pow, operator.getitem, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
    )
} | {
    f"torch.{function.__name__}": function
    for function in (torch.sym_max, torch.sym_min, torch.sym_int, torch.sym_float, torch.sym_not)
} | {f"math.{function.__name__}": function for function in (math.ceil, math.floor, math.trunc)}  # fmt: skip
NAMES = {function: name for name, function in ARITHMETIC.items()}
TEXTS = frozenset({
    "mode", "reduce", "norm", "approximate", "ord", "p", "rounding_mode", "interpolation", "side", "padding",
    "indexing", "pad_mode", "equation",
})  # fmt: skip


def name_operator(target: Any) -> str | None:
    """Return the name of an operator, None if a module's program may not use it."""
    if isinstance(target, torch._ops.OpOverload):
        name = f"aten.{target._schema.name.split('::')[1]}.{target._overloadname}"
        return name if target.namespace == "aten" and _only_computes(target) else None
    return NAMES.get(target)


def _only_computes(operator: torch._ops.OpOverload) -> bool:
    """Return whether an operator has no side effects."""
    schema = operator._schema
    texts = {argument.name for argument in schema.arguments if "str" in str(argument.type)}
    return bool(schema.returns) and not schema.is_mutable and texts <= TEXTS


@cache
def find_operator(name: str) -> Any:
    """Return the operator with that name.

    Raises:
        StorageError: this version of torch has none, or it is not one that a module's program may hold.
    """
    if name in ARITHMETIC:
        return ARITHMETIC[name]
    words = name.split(".")
    if len(words) == 3 and words[0] == "aten":
        operator = getattr(getattr(torch.ops.aten, words[1], None), words[2], None)
        if isinstance(operator, torch._ops.OpOverload) and _only_computes(operator):
            return operator
    raise StorageError(f"{name} is not an operator of torch {torch.__version__} that a module's program may hold")
