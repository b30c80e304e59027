"""`lean`: files, tuning, bad input, and its criterion."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur as sc
from lean_networks import UnpaddedTower
from secateur.sparsity.lean import lean


def test_lean_is_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    model, x = UnpaddedTower(norm=False).eval(), torch.randn(2, 1, 10, 10)
    pruned = lean(model, x, keep=0.3)
    pruned.save(tmp_path)
    loaded = sc.load(UnpaddedTower(norm=False).eval(), tmp_path)
    assert torch.equal(loaded(x), pruned.model(x))
    assert "kernels 42" in str(pruned) and "chains" in str(pruned)
    assert pruned.report.keep == {"kernels": 0.3} and "kernels 42" in str(pruned.report)
    assert (tmp_path / "report.json").read_text() == pruned.report.to_json()


def test_tuning_steps_fine_tune_towards_the_model_itself_and_leave_zeros() -> None:
    torch.manual_seed(0)
    model, x = UnpaddedTower(norm=False).eval(), torch.randn(8, 1, 10, 10)
    plain = lean(model, x, {"kernels": 0.5}, progress=False)
    tuned = lean(model, x, {"kernels": 0.5}, tuning_steps=30, learning_rate=0.01, batch_size=8, progress=False)
    assert tuned.kernels == plain.kernels
    assert tuned.report.pruned.divergence < plain.report.pruned.divergence


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.0}, "keep=0.0"),
        ({"keep": 0.5, "rounds": 0}, "rounds=0"),
        ({"keep": {"macs": 0.5}}, "is no budget of kernels"),
        ({"keep": 0.5, "fit": print, "tuning_steps": 3}, "give one of them"),
        ({"keep": 0.5, "by": "l7"}, "known are lean, norm, l1"),
        ({"keep": 0.5, "skip": "nowhere"}, "matches no layer"),
        ({"keep": 0.5, "skip": "*"}, "no kernels to prune"),
    ],
)
def test_bad_input_of_lean(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        lean(UnpaddedTower(norm=False), torch.randn(1, 1, 10, 10), **options)


def test_lean_refuses_weights_that_are_nan_by_name() -> None:
    model = UnpaddedTower(norm=False).eval()
    with torch.no_grad():
        model.second.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(sc.SecateurError, match=r"second\.weight of this UnpaddedTower has NaN in 1 of 324 entries"):
        lean(model, torch.randn(1, 1, 10, 10), 0.5)


def test_the_criterion_follows_the_strongest_chain() -> None:
    """Multiplying all that leads to a unit by e moves its score by one."""
    model, x = UnpaddedTower(norm=False).eval(), torch.randn(1, 1, 10, 10)
    with torch.no_grad():
        for layer in (model.first, model.second, model.last):
            layer.weight.mul_(10)
    before = sc.score(sc.trace(model, x), by="lean")["first"].values
    with torch.no_grad():
        model.first.weight[1] *= math.e
    after = sc.score(sc.trace(model, x), by="lean")["first"].values
    assert torch.allclose((after - before)[[0, 2, 3, 4, 5]], torch.zeros(5).double(), atol=1e-6)
    assert float((after - before)[1]) == pytest.approx(1, abs=1e-5)
