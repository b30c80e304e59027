"""Blocks multiplied by loops compiled for this processor, where numba is installed."""

from importlib.util import find_spec
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.sparsity.packed_layers.tiles import TiledLinear

Array = NDArray[Any]
Operands = tuple[Array, Array, Array, int]
STEP = 8  # the loops take so many inputs at once


class LoopedLinear(TiledLinear):
    """A tiled layer that runs in compiled loops, on one thread: quickest for single examples and for narrow blocks.

    Where gradients are asked for, in exports and in compiled graphs it is a `TiledLinear`. The first call of a process
    compiles for some seconds.

    Args: as of `TiledLinear`.

    Raises:
        NotImplementedError: numba is not installed, or the loops do not support such blocks, numbers or devices.
    """

    def __init__(
        self, dense: nn.Linear, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__(dense, weight, blocks, shape, gather)
        if find_spec("numba") is None:
            raise NotImplementedError("numba is not installed")
        if weight.dtype != torch.float32 or weight.device.type != "cpu" or shape[1] % STEP:
            raise NotImplementedError(f"blocks of {shape} in {weight.dtype} on {weight.device}")
        if self.bias is None:
            self.bias = nn.Parameter(torch.zeros(len(self.weight), 1, shape[0]))
        self.requires_grad_(False)
        self._arrays_at: tuple[tuple[int, int], Operands] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer."""
        learns = x.requires_grad or (self.weight.requires_grad and torch.is_grad_enabled())
        is_recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if learns or is_recorded or x.dtype != torch.float32 or x.device.type != "cpu":
            return super().forward(x)
        from secateur.sparsity.packed_layers.numba_loops import multiply_blocks  # noqa: PLC0415 (numba need not be there)

        result = torch.from_numpy(multiply_blocks(self.in_order(x).contiguous().numpy(), *self._operands()))
        return result[:, : self.outputs].reshape(*x.shape[:-1], self.outputs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays_at": None}  # addresses of another process

    def _operands(self) -> Operands:
        """Return the weights as arrays, converted once: that takes as long as a fifth of a layer of 1,024."""
        assert self.bias is not None
        addresses = self.weight.data_ptr(), self.bias.data_ptr()
        if self._arrays_at is None or self._arrays_at[0] != addresses:
            read = self.get_buffer("read")
            self._arrays_at = (
                addresses,
                (self.weight.detach().numpy(), read.numpy(), self.bias.detach().numpy(), self.shape[1]),
            )
        return self._arrays_at[1]
