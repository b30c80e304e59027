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


def _factor(share: float) -> Callable[..., float]:
    """Of a matrix with n rows, this part of n^3 operations."""
    return lambda matrix, *_, **__: share * _batches(matrix) * matrix.shape[-1] ** 3


def _solve(matrix: Tensor, right: Tensor, *_: Any, **__: Any) -> float:
    return _factor(2 / 3)(matrix) + _substitute(right, matrix)


def _substitute(right: Tensor, matrix: Tensor, *_: Any, **__: Any) -> float:
    """Two triangular systems."""
    columns = 1 if right.dim() == 1 else right.shape[-1]
    return 2.0 * _batches(matrix) * matrix.shape[-1] ** 2 * columns


FACTORIZATIONS: dict[Any, Callable[..., float]] = {
    aten._linalg_solve_ex: _solve,
    aten.linalg_lu_factor_ex: _factor(2 / 3),
    aten.linalg_lu_solve: lambda factor, pivots, right, **_: _substitute(right, factor),
    aten.linalg_cholesky_ex: _factor(1 / 3),
    aten.cholesky_solve: _substitute,
    aten.cholesky_inverse: _factor(2 / 3),
    aten.linalg_inv_ex: _factor(2),
    aten.linalg_solve_triangular: lambda matrix, right, **_: _substitute(right, matrix) / 2,
    aten._linalg_eigh: _factor(9),
    aten.linalg_eigh: _factor(9),
}


class FlopCounter(TorchDispatchMode):
    """Counts what runs within it, backward passes included.

    Args:
        by_stage: operations; those in float64 count twice.
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
        doubled = any(isinstance(each, Tensor) and each.dtype == torch.float64 for each in args)
        stage = stage_of(sys._getframe())
        self.by_stage[stage] = self.by_stage.get(stage, 0.0) + operations * (2 if doubled else 1)
        return result


def uncounted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function outside of any counter: an export under one takes the batch size for a constant."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return run
