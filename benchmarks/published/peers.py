"""Other methods without training, such as the compensation of GRAIL, on the inner convolutions of blocks.

The padded shortcuts of these networks couple channels of different numbers, which torch-pruning cannot cut, so all
peers remove the same fraction of the channels between the two convolutions of every block.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

from published.cifar import blocks_of

GRAIL_RIDGE = 1e-3  # times the mean of the Gram matrix's diagonal
STEPS = 12  # of the bisection for the fraction that meets a budget


def macs_of(model: nn.Module, image: Tensor) -> int:
    """Return the multiplications of convolutions and linear layers for one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(image[None])
    return int(counter.get_total_flops() // 2)


def share_for(dense: nn.Module, keep: float, image: Tensor) -> float:
    """Return the smallest fraction of inner channels to remove that leaves at most `keep` of the MACs."""
    low, high, total = 0.0, 0.98, macs_of(dense, image)
    for _ in range(STEPS):
        share = (low + high) / 2
        kept = {name: torch.arange(_kept_count(block, share)) for name, block in blocks_of(dense).items()}
        if macs_of(cut_inner(dense, kept), image) <= keep * total:
            high = share
        else:
            low = share
    return high


def _kept_count(block: nn.Module, share: float) -> int:
    return max(1, round(block.conv1.out_channels * (1 - share)))


def kept_by_norm(dense: nn.Module, share: float) -> dict[str, Tensor]:
    """Return the inner channels with the largest L2 norms of their filters, by block, ascending."""
    return {
        name: block.conv1.weight.detach().flatten(1).norm(dim=1).topk(_kept_count(block, share)).indices.sort().values
        for name, block in blocks_of(dense).items()
    }


def kept_at_random(dense: nn.Module, share: float, seed: int) -> dict[str, Tensor]:
    """Return inner channels drawn at random, by block, ascending."""
    draws = torch.Generator().manual_seed(seed)
    return {
        name: torch.randperm(block.conv1.out_channels, generator=draws)[: _kept_count(block, share)].sort().values
        for name, block in blocks_of(dense).items()
    }


def cut_inner(dense: nn.Module, kept: dict[str, Tensor]) -> nn.Module:
    """Return a copy with only the kept inner channels of each block."""
    small = copy.deepcopy(dense)
    for name, block in blocks_of(small).items():
        _narrow(block, kept[name], block.conv2.weight.detach()[:, kept[name]])
    return small


def _narrow(block: nn.Module, kept: Tensor, reading: Tensor) -> None:
    """Keep some inner channels of a block; `reading` becomes the weight of the second convolution."""
    conv1, bn1, conv2 = block.conv1, block.bn1, block.conv2
    conv1.weight = nn.Parameter(conv1.weight.detach()[kept])
    bn1.weight, bn1.bias = nn.Parameter(bn1.weight.detach()[kept]), nn.Parameter(bn1.bias.detach()[kept])
    bn1.running_mean, bn1.running_var = bn1.running_mean[kept], bn1.running_var[kept]
    conv2.weight = nn.Parameter(reading.contiguous())
    conv1.out_channels = bn1.num_features = conv2.in_channels = len(kept)


@torch.no_grad()
def grail(dense: nn.Module, kept: dict[str, Tensor], batches: Sequence[Tensor]) -> nn.Module:
    """Cut inner channels and compensate for them, after GRAIL (Tang et al., 2026), written from the paper.

    Block by block, the Gram matrix of the second convolution's input over examples and positions gives the ridge
    regression of all hidden channels on the kept ones; this map is merged into the second convolution.

    Args:
        dense: the dense network.
        kept: the inner channels that are kept, by block.
        batches: images without labels.
    """
    small = copy.deepcopy(dense).eval()
    for name, block in blocks_of(small).items():
        gram = _gram(small, block.conv2, batches)  # (channels, channels)
        indices = kept[name]
        system = gram[indices][:, indices]
        ridge = GRAIL_RIDGE * system.diagonal().mean() * torch.eye(len(indices), dtype=gram.dtype)
        reconstruction = torch.linalg.solve(system + ridge, gram[indices]).T  # (channels, kept)
        weight = block.conv2.weight.double()
        _narrow(block, indices, torch.einsum("oihw,ik->okhw", weight, reconstruction).float())
    return small


def _gram(model: nn.Module, layer: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """Return the sum of products of a layer's input channels over examples and positions, (channels, channels)."""
    sums: list[Tensor] = []

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].movedim(1, 3).flatten(0, 2).double()  # (examples * positions, channels)
        sums.append(rows.T @ rows)

    hook = layer.register_forward_pre_hook(add)
    for batch in batches:
        model(batch)
    hook.remove()
    return torch.stack(sums).sum(0)


@torch.no_grad()
def with_batch_norm_anew(model: nn.Module, batches: Sequence[Tensor]) -> nn.Module:
    """Return a copy whose batch norms have the means and variances of these images."""
    small = copy.deepcopy(model)
    update_bn(batches, small)
    return small.eval()
