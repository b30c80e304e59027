"""The memory limit of scoring: kept within a tenth by every criterion that takes it, refused where it is too small."""

import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from live_bytes import LiveBytes
from memory_subject import OPTIONS, convolutions
from secateur.errors import BudgetError
from secateur.importance.registry import criteria


@functools.cache
def linear_layers() -> tuple[sc.Network, tuple[Tensor, Tensor]]:
    """Layers whose covariances and lists of coalitions are large against the activations."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 5)).eval()
    x, y = torch.randn(32, 16), torch.randint(0, 5, (32,))
    return sc.trace(model, x[:2]), (x, y)


Subject = tuple[sc.Network, tuple[Tensor, Tensor]]


def least_limit(subject: Subject, **options: Any) -> int:
    """The smallest limit that works, as the refusal of a smaller one says."""
    network, data = subject
    with pytest.raises(BudgetError, match="one step needs") as refused:
        sc.score(network, data, memory=1, progress=False, **options)
    needed = re.search(r"one step needs ([\d,]+)", str(refused.value))
    assert needed is not None
    assert f"memory={needed[1].replace(',', '')} or more" in str(refused.value)
    return int(needed[1].replace(",", ""))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_limit_is_kept_within_a_tenth_and_changes_nothing(name: str) -> None:
    check_limit_is_kept(convolutions(), **{"by": name, **OPTIONS[name]})


@pytest.mark.parametrize("by", ["obs", "leave-one-out"])
def test_the_memory_limit_covers_matrices_of_units(by: str) -> None:
    check_limit_is_kept(linear_layers(), by=by)


def check_limit_is_kept(subject: Subject, **options: Any) -> None:
    """At the smallest limit and above the peak is within it, and the scores are those without a limit."""
    network, data = subject
    least = least_limit(subject, **options)
    plain = sc.score(network, data, progress=False, **options)
    for limit in (least, int(1.4 * least)):
        with LiveBytes() as live:
            scores = sc.score(network, data, memory=limit, progress=False, **options)
        assert live.peak <= 1.1 * limit
        assert live.peak >= 0.5 * least  # a limit that is refused without need is no limit
        for group in plain:  # kernels of some processors round differently for batches of other sizes
            torch.testing.assert_close(scores[group].values, plain[group].values, rtol=1e-4, atol=1e-6)
    with pytest.raises(BudgetError, match="one step needs"):
        sc.score(network, data, memory=int(0.95 * least), progress=False, **options)


def test_every_criterion_that_takes_the_limit_is_measured() -> None:
    takes = {name for name in criteria() if "memory" in criteria()[name].options}
    assert takes == {options.get("by", name) for name, options in OPTIONS.items()}


def test_a_tensor_counts_until_its_last_view_is_gone() -> None:
    before = torch.zeros(500)
    with LiveBytes() as live:
        x = torch.zeros(1000)
        view, old = x[:10], before[:10]
        del x
        assert live.now == 4000
        del view
        assert live.now == 0
        assert (old + 1).sum() == 10
    assert live.peak == 4000
