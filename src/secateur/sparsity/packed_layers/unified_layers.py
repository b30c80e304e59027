"""Layers of unified blocks that make use of them: one multiplication for each filter of a block."""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.packed_layers.gathered_conv import padding_around
from secateur.sparsity.packed_layers.shared_entries import shared_entries


def sign_patterns(width: int) -> Tensor:
    """Return every pattern of signs whose first is plus. (patterns, width)"""
    numbers = torch.arange(2 ** (width - 1))[:, None]
    return 1 - 2 * F.pad((numbers >> torch.arange(width - 1)) & 1, (1, 0))


class _SharedLayer(nn.Module):
    """The base of a linear layer and a convolution of runs: the signs, and sparse matrices of magnitudes.

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
        self.has_free_weights = False
        self.shape = (0, 0)

    def hold(self, matrices: Sequence[Tensor]) -> None:
        """Keep the magnitudes of matrices (outputs, inputs) of equal size, whose runs lie along their rows.

        Each is a sparse matrix of (outputs, runs * patterns), and of further columns for the inputs themselves, where
        some weight is free.
        """
        entries = [shared_entries(matrix, self.width) for matrix in matrices]
        outputs, inputs = matrices[0].shape
        count, across = len(self.patterns), -(-inputs // self.width)
        self.has_free_weights = any(len(runs.free_values) for runs in entries)
        self.shape = (outputs, across * count + inputs * self.has_free_weights)
        for number, runs in enumerate(entries):
            at = torch.stack([runs.rows, runs.runs * count + runs.patterns])
            free_at = torch.stack([runs.free_rows, across * count + runs.free_columns])
            values = torch.cat([runs.levels, runs.free_values])
            matrix = _compressed_rows(torch.cat([at, free_at], 1), values, self.shape)
            self.register_parameter(f"values_{number}", nn.Parameter(matrix.values(), requires_grad=False))
            self.register_buffer(f"starts_{number}", matrix.crow_indices().int())  # MKL takes 32 bits as they are
            self.register_buffer(f"places_{number}", matrix.col_indices().int())

    def magnitudes(self, number: int) -> Tensor:
        """Return one of the sparse matrices."""
        starts, columns = self.get_buffer(f"starts_{number}"), self.get_buffer(f"places_{number}")
        values = self.get_parameter(f"values_{number}")
        return torch.sparse_csr_tensor(starts, columns, values, self.shape, check_invariants=False)

    def sums(self, flat: Tensor) -> Tensor:
        """Return sums of runs of inputs (inputs, columns) by each pattern of signs, then the inputs of free weights."""
        missing = -len(flat) % self.width
        padded_rows = F.pad(flat, (0, 0, 0, missing)) if missing else flat  # padding by nothing copies
        sums = (self.patterns @ padded_rows.unflatten(0, (-1, self.width))).flatten(0, 1)  # (runs * patterns, columns)
        return torch.cat([sums, flat]) if self.has_free_weights else sums


def _compressed_rows(indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    coordinates = torch.sparse_coo_tensor(indices, values, shape, check_invariants=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return coordinates.coalesce().to_sparse_csr()


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
        self.hold([dense.weight.detach()])

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        flat = x.reshape(-1, self.inputs).t()  # (inputs, batch)
        result = (self.magnitudes(0) @ self.sums(flat)).t()
        result = result if self.bias is None else result + self.bias
        rows: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return rows


class SharedConvolution(_SharedLayer):
    """A 2-D convolution without groups whose weight has runs of one absolute value along the input channels.

    Channels are summed by runs and patterns once for each place of the image; each place of the kernel has a sparse
    matrix of magnitudes, which multiplies the sums moved by that place. With a stride of 1 moving copies nothing: an
    image's rows lie behind one another, and what comes of their ends is cut off. Images are taken one at a time, so
    that their sums stay in the cache.

    Args:
        dense: the convolution that it stands for.
        width: of a run, up to 8.
    """

    def __init__(self, dense: nn.Conv2d, width: int) -> None:
        super().__init__(dense.weight, width, dense.bias)
        self.kernel_size, self.stride, self.dilation = dense.kernel_size, dense.stride, dense.dilation
        self.padding, self.padding_mode = padding_around(dense), dense.padding_mode
        self.hold(list(dense.weight.detach().flatten(2).unbind(2)))  # (outputs, inputs) of each place

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        if x.dim() == 3:
            return self.forward(x[None])[0]
        mode: Any = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, self.padding, mode=mode) if any(self.padding) else x
        result = torch.stack([self._one_image(image) for image in padded])
        return result if self.bias is None else result + self.bias[:, None, None]

    def _one_image(self, image: Tensor) -> Tensor:
        """Return the result for one image (channels, h, w), without the bias. (outputs, h, w)"""
        high, wide = (
            (length - step * (kernel - 1) - 1) // stride + 1
            for length, step, kernel, stride in zip(
                image.shape[1:], self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        across = image.shape[2]
        sums = self.sums(image.flatten(1))  # (sums, h * w)
        kernel_positions = itertools.product(range(self.kernel_size[0]), range(self.kernel_size[1]))
        offsets = [row * self.dilation[0] * across + column * self.dilation[1] for row, column in kernel_positions]
        if self.stride == (1, 1):
            count = (high - 1) * across + wide
            moved = [sums[:, offset : offset + count] for offset in offsets]
        else:
            steps = (sums.stride(0), self.stride[0] * across, self.stride[1])
            views = [sums.as_strided((len(sums), high, wide), steps, sums.storage_offset() + at) for at in offsets]
            moved = [view.flatten(1) for view in views]
        result = self.magnitudes(0) @ moved[0]
        for number, columns in enumerate(moved[1:], 1):
            result = torch.addmm(result, self.magnitudes(number), columns)
        if self.stride == (1, 1):
            result = F.pad(result, (0, high * across - count)).unflatten(1, (high, across))[:, :, :wide]
        return result.reshape(-1, high, wide)
