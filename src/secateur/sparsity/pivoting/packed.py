"""Which kernel a layer of dense blocks gets: the one that takes least time here."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from secateur.sparsity.pivoting.block_sparse import BlockSparseLinear
from secateur.sparsity.pivoting.looped import LoopedLinear
from secateur.sparsity.pivoting.tiles import TiledConvolution, TiledLinear
from secateur.sparsity.timing import fastest

KERNELS: dict[type[nn.Module], dict[str, Callable[..., nn.Module]]] = {
    nn.Linear: {"tiles": TiledLinear, "bsr": BlockSparseLinear, "loops": LoopedLinear},
    nn.Conv1d: {"tiles": TiledConvolution},
    nn.Conv2d: {"tiles": TiledConvolution},
    nn.Conv3d: {"tiles": TiledConvolution},
}


def fastest_of(
    dense: nn.Module, weight: Tensor, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None, x: Tensor
) -> tuple[str, nn.Module, dict[str, float]]:
    """The kernel that takes least time for an input like x on this machine, the dense layer being one of them.

    Args:
        dense: the layer as it is, with zeros; of a type in `KERNELS`.
        weight, blocks, shape, gather: as `TiledLinear` takes them.
        x: an input of the layer.

    Returns:
        Its name ("dense", "tiles", "bsr", "loops"), the module, and the milliseconds of each that this machine can run.
    """
    gather = None if gather is None else gather.to(weight.device)
    makers: dict[str, Callable[[], nn.Module]] = {"dense": lambda: dense}
    for name, maker in KERNELS[type(dense)].items():
        if name != "bsr" or shape[0] == shape[1]:  # torch's product takes square blocks only
            makers[name] = partial(maker, dense, weight, blocks, shape, gather)
    return fastest(makers, x)
