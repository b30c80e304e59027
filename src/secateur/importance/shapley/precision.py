"""The arithmetic of coalitions: that of the network, or bfloat16 where the machine is faster in it.

Losses are taken in float32 in any case.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.errors import NameMatchError

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def find_precision(name: str | None) -> torch.dtype | None:
    """Return the type of matrix products; None for the network's own.

    Raises:
        NameMatchError: an unknown name.
    """
    if name is not None and name not in PRECISIONS:
        raise NameMatchError(f"precision={name!r} is unknown; known are {', '.join(PRECISIONS)}")
    return PRECISIONS[name or "float32"]


def lowered_precision(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """Return a context in which products are taken in this precision."""
    return nullcontext() if precision is None else torch.autocast(device.type, precision, cache_enabled=False)


def full_precision(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """Return a context in which products are taken in the tensors' own precision."""
    return nullcontext() if precision is None else torch.autocast(device.type, enabled=False)


def raise_precision(output: Any, precision: torch.dtype | None) -> Any:
    """Return an output of products of lower precision as float32."""

    def raise_leaf(leaf: Any) -> Any:
        return leaf.float() if isinstance(leaf, Tensor) and leaf.dtype == precision else leaf

    return output if precision is None else pytree.tree_map(raise_leaf, output)
