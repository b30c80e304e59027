"""Layers that read thousands of values: ranked, refitted and adapted without a cap, in bounded memory."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from live_bytes import LiveBytes
from secateur.data.conversion import as_batches
from secateur.errors import BudgetError
from secateur.masking.linear_layers import layers_of
from secateur.recovery import refit_memory, ridge
from secateur.recovery.refit_memory import check_refit_memory, refit_bytes
from secateur.recovery.regression_moments import RegressionMoments
from secateur.recovery.ridge import RIDGES, Choice, select_ridge, solve
from secateur.utils import symmetric_matrices
from secateur.utils.symmetric_matrices import add_products, factor_in_place, invert_factor_in_place, products

pytestmark = untrained_networks

SCRIPT = """
import resource, warnings
import torch, secateur as sc
from torch import nn
warnings.simplefilter("ignore")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 11_008), nn.ReLU(), nn.Linear(11_008, 8))
data = torch.randn(64, 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = sc.prune(model, data, keep={"params": 0.5}, allocation="uniform", test=data, progress=False)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
error, size = ((result.model(data) - model(data)).square().mean(), model(data).var())
print((after - before) // 1024, float(error / size), len(result.plan.kept["0"]))
"""


def test_a_layer_that_reads_11_008_values_is_pruned_in_a_fresh_process() -> None:
    """A matrix of its features alone would take 970 MB."""
    process = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    megabytes, error, kept = process.stdout.split()
    assert int(kept) < 5600
    assert float(error) < 1e-3  # half of the features predict 64 rows exactly
    assert int(megabytes) < 700


@pytest.mark.parametrize("columns", [7, 1000])
def test_products_factors_and_inverses_in_place(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetric_matrices, "COLUMNS", columns)
    monkeypatch.setattr(symmetric_matrices, "PROCESSOR_COLUMNS", columns)
    torch.manual_seed(0)
    rows = torch.randn(2, 40, 30, dtype=torch.float64)
    gram = products(rows[:, :25])
    add_products(gram, rows[:, 25:])
    expected = rows.mT @ rows
    torch.testing.assert_close(gram, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(gram[:, 7:, :7], gram[:, :7, 7:].mT) or columns > 7  # computed once
    memory = gram.data_ptr()
    factor, failed = factor_in_place(gram)
    assert not bool(failed.any())
    assert factor.data_ptr() == memory
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(invert_factor_in_place(factor[1]), torch.linalg.inv(expected[1]))


def test_a_matrix_that_is_not_positive_definite_is_told() -> None:
    matrices = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, 1.0]))])
    assert factor_in_place(matrices)[1].bool().tolist() == [False, True]


@pytest.mark.parametrize("has_constant", [True, False])
def test_wide_layers_are_solved_for_as_a_direct_solution_says(
    has_constant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one factorization at a time, products in blocks of columns and sums of squares in blocks of outputs."""
    torch.manual_seed(0)
    features = torch.randn(1, 300, 40).double()
    features[..., -1] = 1 if has_constant else features[..., -1]
    targets = features @ torch.randn(1, 40, 9).double() + torch.randn(1, 300, 9).double()
    plain = [RegressionMoments.of(features[:, rows], targets[:, rows]) for rows in (slice(200), slice(200, 300))]
    choice = select_ridge(plain[0], plain[1], None, has_constant)
    monkeypatch.setattr(ridge, "WIDE", 1)
    monkeypatch.setattr(symmetric_matrices, "COLUMNS", 7)
    fitted = RegressionMoments.of(features[:, :120], targets[:, :120]).with_rows(
        features[:, 120:200], targets[:, 120:200]
    )
    held_out = RegressionMoments.of(features[:, 200:], targets[:, 200:])
    assert select_ridge(fitted, held_out, None, has_constant) == choice
    assert choice.ridge is not None
    change = solve(fitted.plus(held_out), None, choice, has_constant)
    penalty = plain[0].plus(plain[1]).penalty(choice.ridge, has_constant)
    expected = torch.linalg.solve(features.mT @ features + torch.diag_embed(penalty), features.mT @ targets)
    torch.testing.assert_close(change, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("ridge_value", RIDGES)
def test_few_rows_of_a_wide_layer_are_solved_for_by_the_system_of_the_rows(ridge_value: float) -> None:
    torch.manual_seed(0)
    features, targets = torch.randn(1, 30, 6000).double(), torch.randn(1, 30, 3).double()
    moments = RegressionMoments.of(features, targets)
    assert moments.products.gram is None
    change = solve(moments, None, Choice(ridge_value, 0), False)
    penalty = moments.penalty(ridge_value, False)[:, None]
    inner = features / penalty @ features.mT + torch.eye(30).double()
    expected = (features / penalty).mT @ torch.linalg.solve(inner, targets)
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-8)


def test_solving_takes_the_memory_that_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of fitted and held-out rows and one factor, beside moments and solutions."""
    monkeypatch.setattr(ridge, "WIDE", 1)
    monkeypatch.setattr(symmetric_matrices, "COLUMNS", 50)
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 600), nn.Tanh(), nn.Linear(600, 6, bias=False)), torch.randn(2, 4)
    layer = next(layer for layer in layers_of(sc.trace(model, x)) if layer.name == "2")
    rows, targets = torch.randn(1, 900, 600), torch.randn(1, 900, 6)
    with LiveBytes() as live:
        fitted = RegressionMoments.of(rows[:, :600], targets[:, :600])
        held_out = RegressionMoments.of(rows[:, 600:], targets[:, 600:])
        choice = select_ridge(fitted, held_out, None, False)
        solve(fitted.plus(held_out), None, choice, False)
    foretold = refit_bytes(layer, 900)
    assert 0.7 * foretold < live.peak < 1.1 * foretold


def test_too_little_memory_is_refused_before_anything_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 600), nn.ReLU(), nn.Linear(600, 6)), torch.randn(2000, 4)

    def no_scoring(*args: Any) -> Any:
        raise AssertionError("it scores")

    network = sc.trace(model, x[:2])
    with pytest.raises(BudgetError, match=r"the refit of 2, which reads 600 values, takes 0\.0 GB"):
        check_refit_memory(network, [], available=1)
    check_refit_memory(network, [], available=1 << 30)
    monkeypatch.setattr(refit_memory, "available_bytes", lambda device: 1000)
    with pytest.raises(BudgetError, match="the refit of 2"):
        sc.prune(model, x, keep={"params": 0.5}, by=no_scoring, progress=False)
    small = sc.prune(model, x, keep={"params": 0.5}, by="l2", repair="mean", progress=False).model
    assert small[0].out_features < 400


class FoldedTokens(nn.Module):
    """A layer whose rows are the tokens of all examples, along one axis or two."""

    def __init__(self, folds: bool) -> None:
        super().__init__()
        self.up, self.down, self.folds = nn.Linear(4, 600), nn.Linear(600, 6), folds

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1) if self.folds else x
        result: Tensor = self.down(self.up(rows).relu())
        return result.view(*x.shape[:2], 6).mean(1)


def test_rows_that_are_folded_into_the_batch_count_as_rows() -> None:
    x, texts = torch.randn(8, 100, 4), []
    for folds in (True, False):
        with pytest.raises(BudgetError) as refused:
            check_refit_memory(sc.trace(FoldedTokens(folds), x[:2]), as_batches(x), available=1)
        texts.append(str(refused.value))
    assert texts[0] == texts[1]
    network = sc.trace(FoldedTokens(True), x[:2])
    layer = next(layer for layer in layers_of(network) if layer.name == "down")
    assert refit_bytes(layer, 800) > refit_bytes(layer, 8)
    check_refit_memory(network, as_batches(x), available=refit_bytes(layer, 800))
    with pytest.raises(BudgetError, match="the refit of down"):
        check_refit_memory(network, as_batches(x), available=refit_bytes(layer, 800) - 1)


def test_a_refit_holds_two_networks_beside_the_cut_one() -> None:
    """The cut network within the dense one's program, and the refitted network while it is judged."""
    torch.manual_seed(0)
    model = nn.Sequential(*(module for _ in range(6) for module in (nn.Linear(300, 300), nn.Tanh())), nn.Linear(300, 4))
    network, x = sc.trace(model, torch.randn(2, 300)), torch.randn(16, 300)
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.9})
    small = sc.cut(model, plan)
    whole = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with LiveBytes() as live:
        sc.repair(small, model, plan, x, "refit", progress=False)
    layer_bytes = 8 * 301 * 301 * 6
    assert live.peak < 2 * whole + layer_bytes
