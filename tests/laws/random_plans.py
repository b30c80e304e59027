"""Networks of the zoo, traced, and random plans for them."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc
from secateur.coupling.residual_blocks import blocks_of
from secateur.data.batch import Batch
from secateur.data.conversion import example_batches
from secateur.masking.unit_means import consumer_means
from zoo import ZOO, grow


@cache
def traced(name: str) -> tuple[nn.Module, Any, sc.Network]:
    """A network of the zoo, an example and its trace, which all tests of a process share and leave as they are."""
    model, example = grow(name)
    return model, example, sc.trace(model, example, **ZOO[name].options)


@cache
def traced_without_options(name: str) -> tuple[nn.Module, Any, sc.Network]:
    """The same by `sc.trace` without options, such as `as_program`."""
    if not ZOO[name].options:
        return traced(name)
    model, example = grow(name)
    return model, example, sc.trace(model, example)


@cache
def means_of(name: str) -> dict[str, Tensor]:
    _, example, network = traced(name)
    return consumer_means(network, [example_batches(example, torch.device("cpu"))[0]])


def drawn(network: sc.Network, seed: int) -> dict[str, Tensor]:
    """A random plan: of each group a random number of units, at least as many as must stay."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for group in network.groups:
        count = int(torch.randint(group.fewest, group.size + 1, (), generator=generator))
        kept[group.name] = torch.randperm(group.size, generator=generator)[:count].sort().values
    return kept


def dropped(network: sc.Network, seed: int) -> list[str]:
    """Some of the blocks that are units beside others; none where there are none."""
    blocks = blocks_of(network)
    draws = torch.Generator().manual_seed(seed)
    return [] if blocks is None else [path for path in blocks.block_paths if torch.rand((), generator=draws) < 0.5]


def plan_of(network: sc.Network, kept: dict[str, Tensor], means: dict[str, Tensor]) -> sc.Plan:
    return sc.Plan(network, kept, means, network.cost(kept, bool(means)), network.cost(), {})


def run(model: nn.Module, batch: Batch) -> Any:
    with torch.no_grad():
        return model(*batch.args, **batch.kwargs)
