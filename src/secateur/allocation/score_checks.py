"""Checks that scores are of the network that is planned for."""

from collections.abc import Sequence

import torch

from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.errors import BudgetError
from secateur.importance.checkpoint import has_weights
from secateur.importance.scores import Scores
from secateur.masking.ablation import consumer_key
from secateur.utils.collected_warnings import warn


def check_scores(network: Network, groups: Sequence[Group], scores: Scores) -> None:
    """Check scores against the network.

    Args:
        network: the traced network.
        groups: those of its groups that have scores.
        scores: the scores.

    Raises:
        BudgetError: they are of a network with other groups or sizes, or NaN or infinite.
    """
    unknown = [name for name in scores if name not in network.by_name]
    other_sizes = [group for group in groups if len(scores[group.name].values) != group.size]
    if unknown or other_sizes:
        name = unknown[0] if unknown else other_sizes[0].name
        raise BudgetError(
            f"these are scores of another network: {len(scores[name].values)} units of {name}, where "
            f"{network.title} has {network.by_name[name].size if not unknown else 'no such group'}; score this one"
        )
    for group in groups:
        if not bool(torch.isfinite(scores[group.name].values).all()):
            raise BudgetError(f"the scores of {group.name} are NaN or infinite; score the network again")
    shapes = {consumer_key(consumer): consumer.units.shape for consumer in network.consumers}
    for name, mean in scores.means.items():
        if shapes.get(name) != mean.shape or not bool(torch.isfinite(mean).all()):
            raise BudgetError(f"the mean of {name} is NaN, infinite, or of another network; score this one")


def warn_of_other_weights(network: Network, scores: Scores) -> None:
    """Warn of scores that were computed with other weights than the network has; those of other groups are refused."""
    sizes = {group.name: group.size for group in network.groups}
    if any(sizes.get(name) != len(scores[name].values) for name in scores):
        return
    if not has_weights(network, scores.weights):
        warn(
            f"these scores by {scores.by!r} were computed with other weights than {network.title} has now; units that "
            "mattered then may not matter now: score the network again, or load the weights that were scored"
        )
