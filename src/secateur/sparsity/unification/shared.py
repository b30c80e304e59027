"""Linear layers of unified blocks that make use of them: one multiplication for a block, where that is faster."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.timing import MakeKernel, fastest_network
from secateur.sparsity.unification.blocks import FREE, UNIFIED, Blocks, found_labels, signs

WIDEST = 8


class SharedLinear(nn.Module):
    """A linear layer whose weight has runs of one absolute value, computed by their signs and magnitudes.

    Each run of inputs is summed with every pattern of signs once, for all outputs: 2 ** (width - 1) sums, as a pattern
    and its opposite differ in the sign alone. An output then takes of each run the sum with its own pattern, times its
    magnitude: a product with a sparse matrix that has one number for a unified run, none for a pruned one, and one for
    each free weight.

    Args:
        dense: the layer that it stands for.
        width: of a run, up to 8.
    """

    def __init__(self, dense: nn.Linear, width: int) -> None:
        super().__init__()
        self.width, self.outputs, self.inputs = width, dense.out_features, dense.in_features
        self.across = -(-self.inputs // width)
        self.register_buffer("patterns", _patterns(width).to(dense.weight))
        matrix = _matrix(dense.weight.detach(), width)
        self.shape = tuple(matrix.shape)
        self.free = matrix.shape[1] > self.across * len(self.get_buffer("patterns"))
        self.values = nn.Parameter(matrix.values(), requires_grad=False)
        self.register_buffer("starts", matrix.crow_indices().int())  # MKL takes 32 bits as they are
        self.register_buffer("places", matrix.col_indices().int())
        self.bias = None if dense.bias is None else nn.Parameter(dense.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.inputs).t()  # (inputs, batch)
        missing = self.across * self.width - self.inputs
        filled = F.pad(flat, (0, 0, 0, missing)) if missing else flat  # padding by nothing copies
        runs = filled.reshape(self.across, self.width, -1)
        sums = (self.get_buffer("patterns") @ runs).flatten(0, 1)  # (across * patterns, batch)
        matrix = torch.sparse_csr_tensor(
            self.get_buffer("starts"), self.get_buffer("places"), self.values, self.shape, check_invariants=False
        )
        result = (matrix @ (torch.cat([sums, flat]) if self.free else sums)).t()
        result = result if self.bias is None else result + self.bias
        found: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return found


def shared(model: nn.Module, inputs: Any, shapes: Mapping[str, tuple[int, ...]]) -> tuple[nn.Module, dict[str, str]]:
    """A copy whose layers make use of their unified blocks, where that is faster on this machine.

    Args:
        model: the model, its weights in blocks.
        inputs: a batch of the size that will be used; each layer is timed on what it gets of it.
        shapes: of blocks, by the names of weights, as `save_compressed` takes them.

    Returns:
        The copy, and for each weight what its layer became: "shared", with the width of the runs that are summed, or
        "dense" where that is faster or where blocks are one input wide.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64))
        >>> _ = model[0].weight.data.copy_(model[0].weight.sign() * 0.5)
        >>> fast, chosen = shared(model, torch.randn(2, 64), {"0.weight": (1, 4)})
        >>> x = torch.randn(3, 64)
        >>> torch.allclose(fast(x), model(x), atol=1e-5)
        True
    """
    fast = fastest_network(model, inputs, shared_kernels(model, shapes))
    return fast.model, fast.kernels


def shared_kernels(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Mapping[str, MakeKernel]]:
    """For each weight in blocks the kernels that its layer can have, by their names.

    Args:
        model: the model, its weights in blocks.
        shapes: of blocks, by the names of weights.
    """
    modules = dict(model.named_modules())
    kernels: dict[str, Mapping[str, MakeKernel]] = {}
    for name, shape in shapes.items():
        path, _, own = name.rpartition(".")
        fits = own == "weight" and type(modules.get(path)) is nn.Linear
        kernels[name] = {shared_name(run): partial(_made, run=run) for run in _runs(shape[1])} if fits else {}
    return kernels


def shared_name(run: int) -> str:
    """What a kernel that sums runs of so many inputs is called."""
    return f"shared {run}"


def _runs(width: int) -> list[int]:
    """Widths of runs that blocks of a width fall into."""
    return [run for run in range(2, min(width, WIDEST) + 1) if width % run == 0]


def _made(dense: nn.Linear, run: int) -> nn.Module:
    """
    Raises:
        NotImplementedError: torch has no sparse product for numbers of this type.
    """
    if dense.weight.dtype not in (torch.float32, torch.float64):
        raise NotImplementedError(f"sparse products of {dense.weight.dtype}")
    return SharedLinear(dense, run)


def _patterns(width: int) -> Tensor:
    """Every pattern of signs whose first is plus. (patterns, width)"""
    numbers = torch.arange(2 ** (width - 1))[:, None]
    return 1 - 2 * F.pad((numbers >> torch.arange(width - 1)) & 1, (1, 0))


def _matrix(weight: Tensor, width: int) -> Tensor:
    """What multiplies the sums of runs, and the inputs themselves where weights are free: compressed sparse rows."""
    blocks = Blocks(tuple(weight.shape), (1, width))
    values, labels = blocks.cut(weight), found_labels(blocks, weight).to(weight.device)
    place = torch.arange(blocks.count, device=weight.device)
    row, run = place // blocks.grid[1], place % blocks.grid[1]
    unified = labels == UNIFIED
    minus = signs(values[unified]) < 0
    turned = minus != minus[:, :1]  # as seen from the first sign
    number = (turned[:, 1:].long() << torch.arange(width - 1, device=weight.device)).sum(1)
    level = values[unified, 0]
    count = 2 ** (width - 1)
    places, entries = [torch.stack([row[unified], run[unified] * count + number])], [level]
    columns = blocks.grid[1] * count
    if bool((labels == FREE).any()):
        at, inside = torch.nonzero((values != 0) & (labels == FREE)[:, None], as_tuple=True)
        places.append(torch.stack([row[at], columns + run[at] * width + inside]))
        entries.append(values[at, inside])
        columns += weight.shape[1]
    sparse = torch.sparse_coo_tensor(
        torch.cat(places, 1), torch.cat(entries), (len(weight), columns), check_invariants=False
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return sparse.coalesce().to_sparse_csr()
