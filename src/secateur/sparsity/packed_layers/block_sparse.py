"""Blocks multiplied by torch's own product of block sparse rows."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.sparsity.packed_layers.tiles import filled_up


class BlockSparseLinear(nn.Module):
    """The layer that `TiledLinear` is, by torch's own block sparse rows, for square blocks.

    Args: as of `TiledLinear`.
    """

    def __init__(
        self, dense: nn.Linear, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        padded_weight = filled_up(weight, blocks, shape)
        self.columns = padded_weight.shape[1]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse BSR tensor support is in beta")
            rows = padded_weight.to_sparse_bsr(shape)
        self.shape = tuple(rows.shape)
        self.values = nn.Parameter(rows.values(), requires_grad=False)
        self.register_buffer("starts", rows.crow_indices())
        self.register_buffer("places", rows.col_indices())
        self.bias = None if dense.bias is None else nn.Parameter(dense.bias.detach().clone())
        self.gather = None if gather is None else nn.Buffer(gather)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        flat = x.reshape(-1, self.inputs)
        flat = flat if self.gather is None else flat.index_select(1, self.gather)
        flat = F.pad(flat, (0, self.columns - self.inputs)) if self.columns > self.inputs else flat
        weight = torch.sparse_bsr_tensor(
            self.get_buffer("starts"), self.get_buffer("places"), self.values, self.shape, check_invariants=False
        )
        result = (weight @ flat.t()).t()[:, : self.outputs]
        result = result if self.bias is None else result + self.bias
        outputs: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return outputs
