"""Repairs by functions of both networks, one after another."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import secateur as sc
from plans_by_norm import microbatches_of
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.surgery.recipe import recipe_of


def repaired_by(model: nn.Module, plan: sc.Plan, x: Tensor, *repairs: Callable[[PairedExecution], None]) -> nn.Module:
    """A copy cut by the plan, every repair done on all examples, whether it helps or not."""
    small = sc.cut(model, plan)
    cut_network = EmbeddedPrunedNetwork.of(small, plan.network, recipe_of(model, plan))
    with torch.no_grad():
        for repair in repairs:
            repair(PairedExecution(cut_network, microbatches_of(x, 32)))
        cut_network.write(small)
    return small
