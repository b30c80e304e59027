"""Numbers of programs that a saved recipe may change, and strong inputs of trial cuts."""

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.surgery import joint_trials, trial_cut, trial_shares
from secateur.surgery.literal_checks import can_become
from secateur.surgery.recipe_checks import MOST_ENTRIES

CHANGES = [
    (8, 4, True), (8, 0, True), (8, 9, False), (8, -2, False),
    (-3, -1, True), (-3, 0, True), (-3, -4, False), (-3, 1, False),
    (8, -1, True), (-1, -1, True), (-1, 5, True), (-1, MOST_ENTRIES, False), (-1, -2, False),
    (None, 4, False), ([8], 4, False), ("8", -1, False),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "possible"), CHANGES)
def test_a_recipe_changes_counts_to_fewer_entries_or_to_inferred_ones(old: object, new: int, possible: bool) -> None:
    assert can_become(old, new) is possible


def test_one_draw_of_trial_cuts_runs_on_strong_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    strengths: list[float] = []
    scaled = trial_cut.scaled_input

    def recorded(value: torch.Tensor) -> torch.Tensor:
        strengths.append(float(scaled(value).abs().max() / value.abs().max()))
        return scaled(value)

    for module in (trial_cut, joint_trials):
        monkeypatch.setattr(module, "scaled_input", recorded)
    sc.trace(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 3))
    assert strengths
    assert set(strengths) == {trial_shares.STRONG}
