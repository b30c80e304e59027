"""Floating-point operations by stage: products as `torch.utils.flop_counter` counts them, and factorizations."""

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

from cost.stages import stage_of

aten: Any = torch.ops.aten


def _batches(matrix: Tensor) -> int:
    return math.prod(matrix.shape[:-2])


def _cubic_cost(share: float) -> Callable[..., float]:
    """Return the cost of a factorization of a matrix with n rows: a multiple of n^3 operations."""
    return lambda matrix, *_, **__: share * _batches(matrix) * matrix.shape[-1] ** 3


def _solve_cost(matrix: Tensor, right: Tensor, *_: Any, **__: Any) -> float:
    return _cubic_cost(2 / 3)(matrix) + _substitution_cost(right, matrix)


def _substitution_cost(right: Tensor, matrix: Tensor, *_: Any, **__: Any) -> float:
    """Return the cost of solving two triangular systems."""
    columns = 1 if right.dim() == 1 else right.shape[-1]
    return 2.0 * _batches(matrix) * matrix.shape[-1] ** 2 * columns


FACTORIZATIONS: dict[Any, Callable[..., float]] = {
    aten._linalg_solve_ex: _solve_cost,
    aten.linalg_lu_factor_ex: _cubic_cost(2 / 3),
    aten.linalg_lu_solve: lambda factor, pivots, right, **_: _substitution_cost(right, factor),
    aten.linalg_cholesky_ex: _cubic_cost(1 / 3),
    aten.cholesky_solve: _substitution_cost,
    aten.cholesky_inverse: _cubic_cost(2 / 3),
    aten.linalg_inv_ex: _cubic_cost(2),
    aten.linalg_solve_triangular: lambda matrix, right, **_: _substitution_cost(right, matrix) / 2,
    aten._linalg_eigh: _cubic_cost(9),
    aten.linalg_eigh: _cubic_cost(9),
}


class FlopCounter(TorchDispatchMode):
    """Count the operations within the context, backward passes included.

    Attributes:
        by_stage: the operations of each stage; those in float64 count twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_stage: dict[str, float] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            operations = float(flop_registry[packet](*args, **kwargs, out_val=result))
        elif packet in FACTORIZATIONS:
            operations = FACTORIZATIONS[packet](*args, **kwargs)
        else:
            return result
        doubled = any(isinstance(argument, Tensor) and argument.dtype == torch.float64 for argument in args)
        stage = stage_of(sys._getframe())
        self.by_stage[stage] = self.by_stage.get(stage, 0.0) + operations * (2 if doubled else 1)
        return result


def uncounted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is not counted, because an export under a counter takes the batch size for a constant."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return run
