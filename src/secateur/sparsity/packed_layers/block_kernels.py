"""The kernels that layers of dense blocks can have."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from secateur.evaluation.kernel_selection import MakeKernel
from secateur.sparsity.packed_layers.block_sparse import BlockSparseLinear
from secateur.sparsity.packed_layers.numba_linear import LoopedLinear
from secateur.sparsity.packed_layers.tiles import TiledConvolution, TiledLinear

KERNELS: dict[type[nn.Module], dict[str, Callable[..., nn.Module]]] = {
    nn.Linear: {"tiles": TiledLinear, "bsr": BlockSparseLinear, "loops": LoopedLinear},
    nn.Conv1d: {"tiles": TiledConvolution},
    nn.Conv2d: {"tiles": TiledConvolution},
    nn.Conv3d: {"tiles": TiledConvolution},
}


def packed_kernels(
    module: nn.Module, blocks: Tensor, shape: tuple[int, int], gather: Tensor | None
) -> dict[str, MakeKernel]:
    """Return the kernels that a layer of dense blocks can have, by name.

    Args:
        module: the layer, with zeros; none are for types that are not in `KERNELS`.
        blocks: as `TiledLinear` takes them.
        shape: as `TiledLinear` takes it.
        gather: as `TiledLinear` takes it.
    """

    def make(kernel: Callable[..., nn.Module], dense: nn.Module) -> nn.Module:
        weight = dense.get_parameter("weight").detach()
        order = None if gather is None else gather.to(weight.device)
        ordered_weight = weight if order is None else weight[:, order]
        return kernel(dense, ordered_weight, blocks, shape, order)

    kernels = KERNELS.get(type(module), {})
    square = shape[0] == shape[1]  # torch's product takes square blocks only
    return {name: partial(make, kernel) for name, kernel in kernels.items() if name != "bsr" or square}
