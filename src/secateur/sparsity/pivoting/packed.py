"""Layers of few dense blocks: inputs gathered, blocks multiplied, results put in their places."""

import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROUNDS = 7


class TiledLinear(nn.Module):
    """A linear layer whose weight is dense blocks, as one batched product over block rows.

    Every block row gets as many blocks as the fullest has; what it lacks is zero.

    Args:
        weight: (outputs, inputs) in block order, zero outside of the blocks.
        bias: (outputs,) or None.
        blocks: which blocks stay (block rows, block columns).
        shape: of a block (rows, columns).
        gather: for each place of the block order the input that sits there; None where they are in order.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        (self.outputs, self.inputs), (high, wide), (down, across) = weight.shape, shape, blocks.shape
        padded = _filled_up(weight, blocks, shape)
        tiles = padded.view(down, high, across, wide).transpose(1, 2)  # (down, across, high, wide)
        most = max(int(blocks.sum(1).max()), 1)
        chosen = blocks.long().argsort(dim=1, descending=True, stable=True)[:, :most]  # (down, most)
        kept = tiles.gather(1, chosen[:, :, None, None].expand(-1, -1, high, wide))
        kept = kept * blocks.gather(1, chosen)[:, :, None, None]
        self.weight = nn.Parameter(kept.transpose(2, 3).reshape(down, most * wide, high).contiguous())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        places = (chosen[:, :, None] * wide + torch.arange(wide)).flatten(1)  # (down, most * wide)
        source = torch.arange(self.inputs) if gather is None else gather
        source = F.pad(source, (0, across * wide - self.inputs), value=self.inputs)  # one place behind the last is zero
        self.register_buffer("read", source[places].flatten())
        self.padded = across * wide != self.inputs

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.inputs)
        flat = F.pad(flat, (0, 1)) if self.padded else flat
        down = len(self.weight)
        read = flat.t().index_select(0, self.get_buffer("read")).view(down, -1, len(flat)).transpose(1, 2)
        result = torch.bmm(read, self.weight)  # (down, batch, high)
        result = result.transpose(0, 1).reshape(len(flat), -1)[:, : self.outputs]
        result = result if self.bias is None else result + self.bias
        found: Tensor = result.view(*x.shape[:-1], self.outputs)
        return found


class BlockSparseLinear(nn.Module):
    """The same by torch's own block sparse rows, for square blocks.

    Args: as of `TiledLinear`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
    ) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        padded = _filled_up(weight, blocks, shape)
        self.columns = padded.shape[1]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse BSR tensor support is in beta")
            self.weight = nn.Parameter(padded.to_sparse_bsr(shape), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.gather = None if gather is None else nn.Buffer(gather)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.inputs)
        flat = flat if self.gather is None else flat.index_select(1, self.gather)
        flat = F.pad(flat, (0, self.columns - self.inputs))
        result = (self.weight @ flat.t()).t()[:, : self.outputs]
        result = result if self.bias is None else result + self.bias
        found: Tensor = result.reshape(*x.shape[:-1], self.outputs)
        return found


def _filled_up(weight: Tensor, blocks: Tensor, shape: tuple[int, int]) -> Tensor:
    """The weight with zeros where the last blocks reach beyond it."""
    missing = [count * size - have for count, size, have in zip(blocks.shape, shape, weight.shape, strict=True)]
    return F.pad(weight.detach(), (0, missing[1], 0, missing[0]))


Maker = Callable[[Tensor, Tensor | None, Tensor, tuple[int, int], Tensor | None], nn.Module]
KERNELS: dict[str, Maker] = {"tiles": TiledLinear, "bsr": BlockSparseLinear}


def fastest(
    dense: nn.Linear, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None, x: Tensor
) -> tuple[str, nn.Module, dict[str, float]]:
    """The kernel that takes least time for an input like x on this machine, the dense layer being one of them.

    Args:
        dense: the layer as it is, with zeros.
        weight, blocks, shape, gather: as `TiledLinear` takes them.
        x: an input (..., inputs).

    Returns:
        Its name ("dense", "tiles", "bsr"), the module, and the milliseconds of each that this machine can run.
    """
    made: dict[str, nn.Module] = {"dense": dense}
    for name, maker in KERNELS.items():
        if name == "bsr" and shape[0] != shape[1]:  # torch's product takes square blocks only
            continue
        try:
            made[name] = maker(weight, dense.bias, blocks, shape, gather)
            with torch.no_grad():
                made[name](x)
        except NotImplementedError:  # torch has no such product for numbers of this type
            del made[name]
    times: dict[str, list[float]] = {name: [] for name in made}
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, module in made.items():
                start = time.perf_counter()
                module(x)
                times[name].append((time.perf_counter() - start) * 1e3)
    least = {name: min(each) for name, each in times.items()}
    best = min(least, key=lambda name: least[name])
    return best, made[best], least
