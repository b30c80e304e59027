"""Networks of unified blocks that make use of them, on layers where that is faster."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from secateur.entry import entry_point
from secateur.evaluation.kernel_selection import MakeKernel, select_network_kernels
from secateur.sparsity.packed_layers.unified_layers import SharedConvolution, SharedLinear

WIDEST = 8


@entry_point
def unified_fast_network(
    model: nn.Module, inputs: Any, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[nn.Module, dict[str, str]]:
    """Return a copy whose layers make use of their unified blocks, where that is faster on this machine.

    Args:
        model: the model, its weights in blocks.
        inputs: a batch of the size that will be used; each layer is timed on what it gets of it.
        shapes: of blocks, by the names of weights, as `save_compressed` takes them.

    Returns:
        The copy, and for each weight what its layer became: "shared", with the width of the runs that are summed, or
        "dense": where that is faster, where blocks are one input wide, and for convolutions whose blocks do not lie
        along the input channels at one place of the kernel.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64))
        >>> _ = model[0].weight.data.copy_(model[0].weight.sign() * 0.5)
        >>> fast, chosen = unified_fast_network(model, torch.randn(2, 64), {"0.weight": (1, 4)})
        >>> x = torch.randn(3, 64)
        >>> torch.allclose(fast(x), model(x), atol=1e-5)
        True
    """
    fast = select_network_kernels(model, inputs, unified_kernels(model, shapes))
    return fast.model, fast.kernels


def unified_kernels(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Mapping[str, MakeKernel]]:
    """Return for each weight in blocks the kernels that its layer can have, by their names.

    Args:
        model: the model, its weights in blocks.
        shapes: of blocks, by the names of weights.
    """
    modules = dict(model.named_modules())
    kernels: dict[str, Mapping[str, MakeKernel]] = {}
    for name, shape in shapes.items():
        path, _, attribute = name.rpartition(".")
        kernels[name] = _kernels_of(modules[path], shape) if attribute == "weight" and path in modules else {}
    return kernels


def _kernels_of(module: nn.Module, shape: tuple[int, ...]) -> dict[str, MakeKernel]:
    """Return the kernels of a layer, by their names: "shared" with the width of the runs that are summed."""
    if type(module) is nn.Linear:
        return {f"shared {run}": partial(_shared_linear, run=run) for run in _run_widths(math.prod(shape[1:]))}
    if type(module) is not nn.Conv2d or module.groups > 1:
        return {}
    side = shape[1] if len(shape) == 4 or module.weight[0, 0].numel() == 1 else 1
    others = math.prod(shape[2:])  # places of the kernel: runs lie along the channels of one
    runs = _run_widths(side) if others == 1 else []
    return {f"shared {run}": partial(_shared_convolution, run=run) for run in runs}


def _run_widths(width: int) -> list[int]:
    """Return the widths of runs that blocks of a width fall into."""
    return [run for run in range(2, min(width, WIDEST) + 1) if width % run == 0]


def _shared_linear(dense: nn.Linear, run: int) -> nn.Module:
    _check_type(dense)
    return SharedLinear(dense, run)


def _shared_convolution(dense: nn.Conv2d, run: int) -> nn.Module:
    _check_type(dense)
    return SharedConvolution(dense, run)


def _check_type(dense: nn.Linear | nn.Conv2d) -> None:
    """Check that torch has sparse products of the layer's type.

    Raises:
        NotImplementedError: torch has no sparse product for numbers of this type.
    """
    if dense.weight.dtype not in (torch.float32, torch.float64):
        raise NotImplementedError(f"sparse products of {dense.weight.dtype}")
