"""Wrong values of the functions of `secateur.sparsity`: each is answered before any work, by place and remedy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.sparsity import lean, pivot, spp, unify

pytestmark = untrained_networks
NAN = float("nan")
IMAGES, ROWS = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0)), torch.ones(8, 16)


def images_network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def rows_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


RUNS: dict[str, Callable[..., Any]] = {
    "lean": lambda model=None, keep=0.5, **options: lean(
        model or images_network(), IMAGES, keep, progress=False, **options
    ),
    "pivot": lambda model=None, density=0.5, **options: pivot(
        model or rows_network(), ROWS, density, shape=(4, 4), progress=False, **options
    ),
    "spp": lambda model=None, keep=None, **options: spp(
        model or images_network(), IMAGES, keep, progress=False, **options
    ),
    "unify": lambda model=None, keep=None, **options: unify(
        model or rows_network(), ROWS, keep, progress=False, **options
    ),
}


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        *[("lean", {"keep": keep}, "the fraction of kernels") for keep in ("a", None, True, [0.5], 0, 1.5, NAN)],
        ("lean", {"keep": {"kernels": "x"}}, "the fraction of kernels"),
        ("lean", {"variance": NAN}, "a variance from 0 up"),
        ("lean", {"variance": -1.0}, "a variance from 0 up"),
        ("lean", {"fit": 3}, "a function that fine-tunes a model in place"),
        ("pivot", {"fit": 3}, "a function that fine-tunes a model in place"),
        ("pivot", {"density": NAN}, "a fraction above 0 and at most 1"),
        *[("spp", {"keep": keep}, r"give \{'macs': 0.5\}") for keep in (0.5, {"macs": "x"}, {"macs": NAN}, {})],
        ("spp", {"ratios": {"*": "x"}}, "the fraction of columns to prune"),
        ("spp", {"ratios": {"*": NAN}}, "the fraction of columns to prune"),
        *[("unify", {"keep": keep}, r"give \{'blocks': 0.5\}") for keep in (0.5, {"blocks": "x"}, {"blocks": NAN}, {})],
        ("unify", {"pruned": NAN}, "two fractions of at most 1 together"),
        ("unify", {"rho": NAN}, "rho above 0"),
        ("unify", {"rho": float("inf")}, "rho above 0"),
    ],
)
def test_wrong_values_are_refused(function: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        RUNS[function](**options)


FROZEN = {
    "lean": (images_network, {"keep": 0.9}),
    "pivot": (rows_network, {}),
    "spp": (images_network, {"keep": {"columns": 0.5}}),
    "unify": (rows_network, {"soft_steps": 8}),
}


@pytest.mark.parametrize("function", FROZEN)
def test_frozen_networks_are_pruned_but_not_trained(function: str) -> None:
    make, options = FROZEN[function]
    with pytest.raises(sc.SecateurError, match=r"no parameter of this Sequential requires gradients.*requires_grad_"):
        RUNS[function](make().requires_grad_(False), tuning_steps=1, **options)
    if function in ("lean", "pivot"):
        frozen, trainable = (RUNS[function](make().requires_grad_(needs), **options) for needs in (False, True))
        pairs = zip(frozen.model.parameters(), trainable.model.parameters(), strict=True)
        assert all(torch.equal(one, other) and not one.requires_grad for one, other in pairs)
