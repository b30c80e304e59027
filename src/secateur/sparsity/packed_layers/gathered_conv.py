"""Convolutions with few remaining columns, as a product of these: only the inputs that they read are gathered."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.entry import entry_point
from secateur.evaluation.kernel_selection import MakeKernel

GATHERED = "gathered"
DENSITY = 0.25


class GatheredConv2d(nn.Module):
    """A 2-D convolution whose weight has columns of zeros.

    A column is one input channel at one position of the kernel, over all filters.

    Of a grouped convolution a column is left out that is zero in all of its groups.

    Args:
        dense: the convolution that it stands for, with zeros.
    """

    def __init__(self, dense: nn.Conv2d) -> None:
        super().__init__()
        self.stride, self.dilation = dense.stride, dense.dilation
        self.padding = padding_around(dense)
        self.kernel_size, self.padding_mode, self.groups = dense.kernel_size, dense.padding_mode, dense.groups
        columns = dense.weight.detach().flatten(2).abs().sum(0).t() > 0  # (positions, channels of a group)
        self.positions = [int(position) for position in torch.nonzero(columns.any(1)).flatten()]
        first = torch.arange(self.groups, device=columns.device)[:, None] * columns.shape[1]  # channel of each group
        for position in self.positions:
            channels = first + torch.nonzero(columns[position]).flatten()  # (groups, channels)
            self.register_buffer(f"channels_{position}", channels.flatten())
        weight = dense.weight.detach().flatten(2)
        matrices = [weight[:, columns[position], position] for position in self.positions]
        self.weight = nn.Parameter(torch.cat(matrices, 1) if matrices else weight[:, :0, 0])  # (filters, columns)
        self.bias = None if dense.bias is None else nn.Parameter(dense.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        if x.dim() == 3:
            return self.forward(x[None])[0]
        mode: Any = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, self.padding, mode=mode)
        sizes = [
            (length - step * (kernel - 1) - 1) // stride + 1
            for length, step, kernel, stride in zip(
                padded.shape[2:], self.dilation, self.kernel_size, self.stride, strict=True
            )
        ]
        columns = torch.cat([self._read(padded, position, sizes) for position in self.positions], 2).flatten(1, 2)
        result: Tensor = F.conv2d(columns, self.weight[:, :, None, None], self.bias, groups=self.groups)
        return result

    def _read(self, padded: Tensor, position: int, sizes: list[int]) -> Tensor:
        """Return the inputs of one position of the kernel, of its channels (batch, groups, channels, h, w)."""
        row, column = divmod(position, self.kernel_size[1])
        top, start = row * self.dilation[0], column * self.dilation[1]
        rows = slice(top, top + self.stride[0] * (sizes[0] - 1) + 1, self.stride[0])
        columns = slice(start, start + self.stride[1] * (sizes[1] - 1) + 1, self.stride[1])
        channels = padded.index_select(
            1, self.get_buffer(f"channels_{position}")
        )  # first: whole maps are copied fastest
        by_group: Tensor = channels[:, :, rows, columns].unflatten(1, (self.groups, -1))
        return by_group

    def extra_repr(self) -> str:
        """Return the numbers of columns and filters."""
        return f"{self.weight.shape[1]} columns -> {self.weight.shape[0]} filters, stride={self.stride}"


def density(layer: nn.Conv2d) -> float:
    """Return the fraction of columns with weights other than zero, in any group of a grouped convolution."""
    columns = layer.weight.detach().flatten(2).abs().sum(0) > 0
    return float(columns.double().mean())


@entry_point
def gathered(model: nn.Module, below: float = DENSITY) -> nn.Module:
    """Return a copy of a model in which convolutions with few columns left compute these alone.

    Args:
        model: a model whose convolutions have columns of zeros, from `SPP.finish` or `secateur.load`.
        below: the density of columns below which a convolution is replaced. docs/spp.md says where that is faster.

    Returns:
        The copy; layers that are dense enough are as they were.
    """
    small = copy.deepcopy(model)
    for path, module in list(small.named_modules()):
        if type(module) is nn.Conv2d and 0 < density(module) < below:
            parent, _, name = path.rpartition(".")
            setattr(small.get_submodule(parent), name, GatheredConv2d(module))
    return small


def gathered_kernels(model: nn.Module, weights: Iterable[str]) -> dict[str, Mapping[str, MakeKernel]]:
    """Return for each weight the kernels that its layer can have: a gathered one where columns are zero.

    Args:
        model: a model whose convolutions have columns of zeros.
        weights: names of weights.
    """
    kernels: dict[str, Mapping[str, MakeKernel]] = {}
    modules = dict(model.named_modules())
    for name in weights:
        path, _, attribute = name.rpartition(".")
        module = modules.get(path)
        fits = type(module) is nn.Conv2d and attribute == "weight" and 0 < density(module) < 1
        kernels[name] = {GATHERED: GatheredConv2d} if fits else {}
    return kernels


def padding_around(dense: nn.Conv2d) -> list[int]:
    """Return the padding of a convolution in the form that `torch.nn.functional.pad` takes."""
    if isinstance(dense.padding, str):
        spans = [step * (size - 1) for step, size in zip(dense.dilation, dense.kernel_size, strict=True)]
        pairs = [(span // 2, span - span // 2) if dense.padding == "same" else (0, 0) for span in spans]
    else:
        pairs = [(size, size) for size in dense.padding]
    return [size for pair in reversed(pairs) for size in pair]
