"""Random shares of groups, and random means, for trial cuts."""

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.masking.ablation import consumer_key
from secateur.surgery.stand_in_weights import is_silent

MOST_MEANS = 64
STRONG = 8  # the factor of the scaled example
WIDE = 1024


def draw_shares(network: Network, seed: int) -> dict[str, Tensor]:
    """Draw a random share of each group's units.

    The first draw keeps at least half of a group, which most models accept, and does not depend on other groups. Later
    draws keep any fraction. Groups of the same size keep different fractions, because equal sizes hide errors. Of wide
    groups the first draw keeps at most half, because the time goes to copying the kept weights.
    """
    shares: dict[str, Tensor] = {}
    same_size: Counter[int] = Counter()
    for group in network.groups:
        generator = np.random.default_rng([seed, group.size, *group.name.encode()])
        largest = group.size // 2 if group.size > WIDE else group.size
        random_count = int(generator.integers(max(1, largest // 2), max(largest, 2)))
        choices, index = max(group.size - 1, 1), same_size[group.size]
        distinct_count = 1 + (group.size // 3 + seed * index + index // choices) % choices
        same_size[group.size] += 1
        kept_count = max(
            (random_count if seed == 0 else distinct_count) // group.multiple * group.multiple,
            group.multiple,
            group.fewest,
        )
        shares[group.name] = torch.from_numpy(np.sort(generator.permutation(group.size)[:kept_count]))
    return shares


def draw_means(network: Network) -> dict[str, Tensor]:
    """Draw random means for some entries of each consumer's input, enough to check that they are folded correctly.

    A consumer whose weights are zero has no constant to fold, and other weights in a trial.
    """
    generator = np.random.default_rng(0)
    state = network.program.state
    means = {}
    for consumer in network.consumers:
        if consumer.fold is None or is_silent(state(consumer.fold.weight)):
            continue
        length = len(consumer.units)
        few = generator.random(length) < MOST_MEANS / length
        means[consumer_key(consumer)] = torch.from_numpy(generator.normal(size=length) * few)
    return means


def scaled_input(tensor: Tensor) -> Tensor:
    """Return the example scaled so that clipped and saturated values show."""
    return tensor * STRONG if tensor.is_floating_point() else tensor
