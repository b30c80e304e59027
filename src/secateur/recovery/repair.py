"""`repair`: mend in closed form, from unlabelled examples, what a cut broke."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from secateur.budget.plan import Plan
from secateur.data import Batch, as_batches, device_of, on_device
from secateur.errors import NameMatchError
from secateur.network.folded import folded
from secateur.network.units import Network
from secateur.recovery.batchnorm import match_batchnorm
from secateur.recovery.refit import refit
from secateur.surgery.recipe import Recipe, recipe_of

Repair = Callable[[nn.Module, nn.Module, Sequence[Batch], Recipe, Network], None]
REPAIRS: dict[str, Repair] = {"batchnorm": match_batchnorm, "refit": refit}


def repair(small: nn.Module, model: nn.Module, plan: Plan, data: Any, how: str = "refit") -> nn.Module:
    """Mend a cut model, in place.

    Args:
        small: the cut model.
        model: the dense one that it should be like.
        plan: by which it was cut.
        data: examples, with or without labels, as `score` takes them; labels are not used. A few hundred are used at
            once.
        how: "batchnorm": batch norms give the means and variances on these examples that the dense network's give;
            "refit": after that, the weights of each linear layer and convolution (depthwise and grouped ones, and
            layers that run more than once, excepted) are solved for by least squares, so that it gives what it gave in
            the dense network.

    Returns:
        The cut model.

    Raises:
        NameMatchError: there is no such repair.
        DataError: the examples can't be used.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2)).eval()
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> plan = sc.plan(network, sc.score(network, by="l2"), keep={"macs": 0.5})
        >>> data = torch.randn(50, 4)
        >>> small = sc.repair(sc.cut(model, plan), model, plan, data, how="batchnorm")
        >>> torch.allclose(small[:2](data).mean(0), model[:2](data).mean(0)[plan.kept["0"]], atol=1e-5)
        True
    """
    function = find_repair(how)
    device = device_of(small)
    batches = [on_device(batch, device) for batch in as_batches(data)]
    if plan.network.as_program:
        warnings.warn("an exported program is not repaired: its layers are operators, not modules", stacklevel=2)
        return small
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        function(small, folded(model), batches, recipe_of(model, plan), plan.network)
    return small


def find_repair(how: str) -> Repair:
    """A repair by name.

    Raises:
        NameMatchError: there is none of that name.
    """
    if how not in REPAIRS:
        raise NameMatchError(f"no repair is named {how!r}; known are {', '.join(REPAIRS)}")
    return REPAIRS[how]
