"""Warnings point at the line of the user that called the package, however deep their cause is."""

from collections.abc import Callable

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur import stopping

pytestmark = untrained_networks

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


def score_one_hot() -> None:
    sc.score(
        sc.trace(linear_stack(4, 64, 3), X[:2]), [(X, torch.eye(3)[torch.arange(16) % 3])], by="taylor", progress=False
    )


def repair_with_few_examples() -> None:
    dense = linear_stack(4, 64, 3)
    network = sc.trace(dense, X[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.9})
    sc.repair(sc.cut(dense, plan), dense, plan, X, how="refit")


def prune_by_an_old_name() -> None:
    sc.score(sc.trace(linear_stack(4, 64, 3), X[:2]), X, by="l2", removal="mean", progress=False)


CALLS: list[tuple[Callable[[], object], type[Warning], str]] = [
    (score_one_hot, UserWarning, "look like one-hot labels"),
    (repair_with_few_examples, UserWarning, "is refitted with care only"),
    (prune_by_an_old_name, DeprecationWarning, "removal='mean' is now ablation='mean'"),
    (lambda: stopping.Known, DeprecationWarning, "use secateur.stopping.SelectionConfident"),
]


@pytest.mark.filterwarnings("ignore:refit was left out:UserWarning")
@pytest.mark.parametrize(("call", "category", "message"), CALLS)
def test_a_warning_points_at_the_call(call: Callable[[], object], category: type[Warning], message: str) -> None:
    with pytest.warns(category, match=message) as caught:
        call()
    (warning,) = [entry for entry in caught if message in str(entry.message)]
    assert warning.filename == __file__
