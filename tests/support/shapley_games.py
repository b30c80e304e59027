"""Games of small networks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import secateur as sc
from random_plans import traced_without_options
from secateur.data.conversion import example_batches
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.game import Game
from zoo import grow

INPUTS = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 2.0], [2.0, 1.0]])


MAXIMA = INPUTS.amax(1, keepdim=True)


def max_network(last: list[float]) -> nn.Module:
    """A network of four units that computes the larger of two numbers (Ancona et al. 2020)."""
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))
    model[0].weight.data = torch.tensor([[-0.5, 1, 1, 1], [0.5, -1, 1, 1]]).T.contiguous()
    model[2].weight.data = torch.tensor([last])
    return model


def scores_of_maxima(model: nn.Module, **options: Any) -> Any:
    network = sc.trace(model, INPUTS)
    aggregate = {"aggregate": "mean"} if options.get("by", "shapley") == "shapley" else {}
    options = {"ablation": "zero", "progress": False, **aggregate, **options}
    return sc.score(network, [(INPUTS, MAXIMA)], **options)["0"]


def as_double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def game_of(name: str, removal: str, double: bool = False) -> tuple[Game, sc.Network]:
    if double:
        model, example = grow(name)
        example = pytree.tree_map(as_double, example)
        network = sc.trace(model.double(), example)
    else:
        _, example, network = traced_without_options(name)
    group = min(network.groups, key=lambda candidate: candidate.size)
    microbatch = example_batches(example, torch.device("cpu"))[0]
    means = sc.score(network, [microbatch], by="apoz", ablation=removal, progress=False).means
    context = CriterionContext(network, network.groups, [microbatch], None, means, 0)
    return Game(context, [group]), network
