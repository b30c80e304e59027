"""Cut networks, and repairs of them by steps that are called one by one."""

from typing import Any

import torch
from torch import nn

import secateur as sc
from secateur.data.conversion import as_batches
from secateur.importance.context import split_microbatches
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.surgery.recipe import recipe_of


def cut_two_fifths(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, sc.Plan]:
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6})
    return sc.cut(model, plan), plan


def repair_alone(repair: Any, small: nn.Module, model: nn.Module, plan: sc.Plan, x: torch.Tensor) -> None:
    """A repair in closed form, whether it helps or not."""
    cut_network = EmbeddedPrunedNetwork.of(small, plan.network, recipe_of(model, plan))
    with torch.no_grad():
        repair(PairedExecution(cut_network, split_microbatches(as_batches(list(x.split(20))), torch.device("cpu"))))
        cut_network.write(small)
