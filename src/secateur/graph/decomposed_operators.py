"""Operators that a program holds as those that they consist of: products and sums, or views and copies.

Taking them apart in a program that is exported already means exporting that program once more, which takes longer than
the first export. So they are taken apart while the model is exported; only programs that must be exported again anyway,
or torch versions without this step, take them apart afterwards.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.export import ExportedProgram
from torch.fx.experimental import proxy_tensor

from secateur.graph.functionalize import without_dropouts


def _addbmm(summand: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Decompose `torch.addbmm`, for which torch has no decomposition."""
    return beta * summand + alpha * torch.bmm(batch1, batch2).sum(0)


ATEN: Any = torch.ops.aten
COMPOSITE = (
    "einsum tensordot outer ger kron chain_matmul linalg_multi_dot cosine_similarity pairwise_distance nanmean "
    "ravel swapdims mH fliplr flipud atleast_1d atleast_2d atleast_3d hstack vstack row_stack dstack column_stack "
    "hsplit vsplit dsplit take_along_dim msort trapezoid trapz special_erf special_erfc special_expit special_exp2 "
    "special_expm1 special_log1p special_sinc special_softmax special_log_softmax special_logsumexp"
)
"""Operators that torch itself defines by others, which have label rules."""


def _overloads(names: str) -> Iterator[Any]:
    """Yield the overloads of operators, but for those that write to a tensor that is given."""
    for name in names.split():
        packet = getattr(ATEN, name)
        overloads = (getattr(packet, overload) for overload in packet.overloads())
        yield from (operator for operator in overloads if not operator._schema.is_mutable)


@cache
def decompositions() -> Mapping[Any, Callable[..., Any]]:
    """Return what these operators consist of: as torch defines them, where it does."""
    composite = {operator: operator.decompose for operator in _overloads(COMPOSITE)}
    baddbmm = ATEN.baddbmm.default
    return {**composite, baddbmm: decomposition_table[baddbmm], ATEN.addbmm.default: _addbmm}


def has_operators_to_decompose(exported: ExportedProgram) -> bool:
    """Return whether a program holds an operator that should be taken apart."""
    return any(node.target in decompositions() for node in exported.graph.nodes)


def decompose_program(exported: ExportedProgram) -> ExportedProgram:
    """Return a program in which these operators are taken apart and none writes, by exporting it again."""
    without_dropouts(exported)
    torchs = {**decompositions(), **torch.export.default_decompositions()}  # of composite operators another than above
    again: ExportedProgram = exported.run_decompositions({operator: torchs[operator] for operator in decompositions()})
    return again


@contextmanager
def operators_taken_apart() -> Iterator[None]:
    """Export these operators as those that they consist of; restore torch on leaving."""
    torchs = getattr(proxy_tensor, "maybe_handle_decomp", None)
    if torchs is None:
        yield
        return

    def decompose(proxy_mode: Any, operator: Any, args: Any, kwargs: Any) -> Any:
        """Take an operator apart, or ask torch whether it does."""
        decomposition = decompositions().get(operator)
        if decomposition is None:
            return torchs(proxy_mode, operator, args, kwargs)
        with proxy_mode:
            return decomposition(*args, **kwargs)

    with patch.object(proxy_tensor, "maybe_handle_decomp", decompose):
        yield
