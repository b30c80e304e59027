"""Layers of unified blocks that make use of them: one multiplication for each filter of a block."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.gathered import padding_around
from secateur.sparsity.unification.blocks import FREE, UNIFIED, Blocks, found_labels, signs


@dataclass(frozen=True, eq=False)
class SharedEntries:
    """A matrix by its runs of one absolute value, and its other entries.

    Args:
        rows, runs, patterns, levels: of each run: its row, its number among the row's, its pattern of signs as seen
            from the first, and its absolute value with the first sign (runs,).
        free_rows, free_columns, free_values: of each other entry that is not zero.
    """

    rows: Tensor
    runs: Tensor
    patterns: Tensor
    levels: Tensor
    free_rows: Tensor
    free_columns: Tensor
    free_values: Tensor


def shared_entries(matrix: Tensor, width: int) -> SharedEntries:
    """The entries of a matrix (rows, columns) whose runs are so wide."""
    blocks = Blocks(tuple(matrix.shape), (1, width))
    values, labels = blocks.cut(matrix), found_labels(blocks, matrix).to(matrix.device)
    place = torch.arange(blocks.count, device=matrix.device)
    row, run = place // blocks.grid[1], place % blocks.grid[1]
    unified = labels == UNIFIED
    minus = signs(values[unified]) < 0
    turned = minus != minus[:, :1]  # as seen from the first sign
    pattern = (turned[:, 1:].long() << torch.arange(width - 1, device=matrix.device)).sum(1)
    at, inside = torch.nonzero((values != 0) & (labels == FREE)[:, None], as_tuple=True)
    return SharedEntries(
        row[unified], run[unified], pattern, values[unified, 0], row[at], run[at] * width + inside, values[at, inside]
    )


def sign_patterns(width: int) -> Tensor:
    """Every pattern of signs whose first is plus. (patterns, width)"""
    numbers = torch.arange(2 ** (width - 1))[:, None]
    return 1 - 2 * F.pad((numbers >> torch.arange(width - 1)) & 1, (1, 0))


class _SharedLayer(nn.Module):
    """What a linear layer and a convolution of runs have in common: the signs, and a sparse matrix of magnitudes.

    Args:
        like: the weight, for its type and device.
        width: of a run.
        bias: of the layer.
    """

    patterns: Tensor

    def __init__(self, like: Tensor, width: int, bias: Tensor | None) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("patterns", sign_patterns(width).to(like))
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def hold(self, places: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        """Keep the matrix of magnitudes by its entries: (row, column) of each, and values."""
        coordinates = torch.sparse_coo_tensor(places, values, shape, check_invariants=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            matrix = coordinates.coalesce().to_sparse_csr()
        self.shape = shape
        self.values = nn.Parameter(matrix.values(), requires_grad=False)
        self.register_buffer("starts", matrix.crow_indices().int())  # MKL takes 32 bits as they are
        self.register_buffer("places", matrix.col_indices().int())

    def times(self, columns: Tensor) -> Tensor:
        """The matrix of magnitudes times columns. (rows, columns)"""
        matrix = torch.sparse_csr_tensor(
            self.get_buffer("starts"), self.get_buffer("places"), self.values, self.shape, check_invariants=False
        )
        product: Tensor = matrix @ columns
        return product


class SharedLinear(_SharedLayer):
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
        super().__init__(dense.weight, width, dense.bias)
        self.outputs, self.inputs = dense.out_features, dense.in_features
        self.across = -(-self.inputs // width)
        self.free = _hold_flat(self, dense.weight.detach(), width)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.inputs).t()  # (inputs, batch)
        result = self.times(_flat_sums(self, flat, self.across)).t()
        result = result if self.bias is None else result + self.bias
        rows: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return rows


class SharedConvolution(_SharedLayer):
    """The same for a 2-D convolution without groups.

    Args:
        dense: the convolution that it stands for.
        width: of a run, up to 8.
        along_channels: whether runs lie along the input channels at one place of the kernel (their number is a multiple
            of the width): channels are summed before windows are taken. Else they lie along a window, channel by
            channel.
    """

    def __init__(self, dense: nn.Conv2d, width: int, along_channels: bool) -> None:
        super().__init__(dense.weight, width, dense.bias)
        self.outputs, self.inputs, self.along_channels = dense.out_channels, dense.in_channels, along_channels
        self.kernel_size, self.stride, self.dilation = dense.kernel_size, dense.stride, dense.dilation
        self.padding, self.padding_mode = padding_around(dense), dense.padding_mode
        weight = dense.weight.detach()
        self.across = -(-weight[0].numel() // width)
        if along_channels:
            self.free = self._hold_along_channels(weight)
        else:
            self.free = _hold_flat(self, weight.flatten(1), width)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x[None])[0]
        mode: Any = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, self.padding, mode=mode) if any(self.padding) else x
        sizes = [
            (length - step * (kernel - 1) - 1) // stride + 1
            for length, step, kernel, stride in zip(
                padded.shape[2:], self.dilation, self.kernel_size, self.stride, strict=True
            )
        ]
        if self.along_channels:
            columns = self._windows(self._channel_sums(padded))
        else:
            columns = _flat_sums(self, self._windows(padded), self.across)
        result = self.times(columns).view(self.outputs, len(x), *sizes).transpose(0, 1)
        return result if self.bias is None else result + self.bias[:, None, None]

    def _channel_sums(self, x: Tensor) -> Tensor:
        """Sums of runs of channels with every pattern of signs, then the channels where weights are free."""
        runs = x.unflatten(1, (-1, self.width)).flatten(3)  # (batch, runs, width, places)
        sums = (self.patterns @ runs).flatten(1, 2).unflatten(2, x.shape[2:])  # (batch, runs * patterns, h, w)
        return torch.cat([sums, x], 1) if self.free else sums

    def _windows(self, x: Tensor) -> Tensor:
        """What each place of the result sees. (channels * kernel, batch * places)"""
        if self.kernel_size == (1, 1):
            windows = x[:, :, :: self.stride[0], :: self.stride[1]].flatten(2)
        else:
            windows = F.unfold(x, self.kernel_size, self.dilation, 0, self.stride)
        rows: Tensor = windows[0] if len(windows) == 1 else windows.transpose(0, 1).flatten(1)
        return rows

    def _hold_along_channels(self, weight: Tensor) -> bool:
        """Keep the magnitudes; whether weights are free. Windows lie channel by channel, so places come last."""
        kernel, runs, count = self.kernel_size[0] * self.kernel_size[1], self.inputs // self.width, len(self.patterns)
        entries = shared_entries(weight.flatten(2).transpose(1, 2).flatten(1), self.width)  # (filters, place * channel)
        place, run = entries.runs // runs, entries.runs % runs
        at = torch.stack([entries.rows, (run * count + entries.patterns) * kernel + place])
        free_place, channel = entries.free_columns // self.inputs, entries.free_columns % self.inputs
        free_at = torch.stack([entries.free_rows, (runs * count + channel) * kernel + free_place])
        free = bool(len(entries.free_values))
        columns = (runs * count + (self.inputs if free else 0)) * kernel
        values = torch.cat([entries.levels, entries.free_values])
        self.hold(torch.cat([at, free_at], 1), values, (self.outputs, columns))
        return free


def _hold_flat(layer: _SharedLayer, matrix: Tensor, width: int) -> bool:
    """Keep the magnitudes of a matrix (outputs, inputs) whose runs lie along its rows; whether weights are free."""
    entries, count = shared_entries(matrix, width), len(layer.patterns)
    sums = -(-matrix.shape[1] // width) * count
    at = torch.stack([entries.rows, entries.runs * count + entries.patterns])
    free_at = torch.stack([entries.free_rows, sums + entries.free_columns])
    free = bool(len(entries.free_values))
    columns = sums + (matrix.shape[1] if free else 0)
    layer.hold(torch.cat([at, free_at], 1), torch.cat([entries.levels, entries.free_values]), (len(matrix), columns))
    return free


def _flat_sums(layer: SharedLinear | SharedConvolution, flat: Tensor, across: int) -> Tensor:
    """Sums of runs of inputs (inputs, batch) with every pattern of signs, then the inputs where weights are free."""
    missing = across * layer.width - len(flat)
    filled = F.pad(flat, (0, 0, 0, missing)) if missing else flat  # padding by nothing copies
    sums = (layer.patterns @ filled.reshape(across, layer.width, -1)).flatten(0, 1)  # (across * patterns, batch)
    return torch.cat([sums, flat]) if layer.free else sums
