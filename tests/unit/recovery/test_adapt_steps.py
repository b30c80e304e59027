"""Steps of a refit and of `adapt` end where they would gain little."""

import warnings
from typing import Any

import pytest
import torch

import secateur as sc
from batch_normed import batch_normed
from expected_warnings import untrained_networks
from plans_by_norm import microbatches_of, plan_by_norm
from secateur import demo
from secateur.recovery import block_problem, repair_runner
from secateur.recovery.block_problem import BlockProblem
from secateur.recovery.block_reconstruction import reconstruct_blocks
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.surgery.recipe import recipe_of

pytestmark = untrained_networks


def slopes_of(monkeypatch: pytest.MonkeyPatch, keep: float, steps: int) -> list[int]:
    """The number of gradients that each problem of the demo's network computes."""
    model, x = demo.network(), torch.cat(demo.calibration())[:32]
    plan = plan_by_norm(model, x, {"units": keep})
    cut_network = EmbeddedPrunedNetwork.of(sc.cut(model, plan), plan.network, recipe_of(model, plan))
    counts, slopes = dict[int, int](), BlockProblem._slopes

    def counted(self: BlockProblem, changes: Any) -> Any:
        counts[self.start] = counts.get(self.start, 0) + 1
        return slopes(self, changes)

    monkeypatch.setattr(BlockProblem, "_slopes", counted)
    with torch.no_grad():
        reconstruct_blocks(PairedExecution(cut_network, microbatches_of(x, 16)), steps)
    monkeypatch.setattr(BlockProblem, "_slopes", slopes)
    return list(counts.values())


def test_steps_end_where_the_next_one_would_gain_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is made as far as it goes, but none follows one that removes less than a share of the error."""
    assert set(slopes_of(monkeypatch, 1.0, 4)) == {1}  # nothing was cut, nothing is lacking
    monkeypatch.setattr(block_problem, "GAIN", 1.0)
    assert set(slopes_of(monkeypatch, 0.5, 4)) == {1}
    monkeypatch.setattr(block_problem, "GAIN", -1.0)
    assert max(slopes_of(monkeypatch, 0.5, 3)) == 3


def test_a_refit_makes_no_steps_where_adapt_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without adapt behind it, all examples are fitted with the steps and ridges that were chosen."""
    model, x = batch_normed()
    plan = plan_by_norm(model, x, {"units": 0.6})
    have_steps, known, original = list[bool](), list[bool](), repair_runner.refit

    def recorded(execution: PairedExecution, choices: Any, examples: int, has_steps: bool) -> Any:
        have_steps.append(has_steps)
        known.append(choices is not None)
        chosen = original(execution, choices, examples, has_steps)
        assert has_steps or not any(choice.steps for choice in chosen.values())
        return chosen

    monkeypatch.setattr(repair_runner, "refit", recorded)
    monkeypatch.setattr(repair_runner, "reconstruct_blocks", lambda *_: True)  # which changes nothing and is left out
    for repairs, expected in (
        (["refit", "adapt"], [False, False]),
        (["refit"], [True, True]),
        (["adapt", "refit"], [True, True]),
    ):
        have_steps.clear()
        known.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.repair(sc.cut(model, plan), model, plan, x, repairs, progress=False)
        assert have_steps == expected and known == [False, True]
