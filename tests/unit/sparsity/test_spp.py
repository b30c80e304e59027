"""SPP: chances as the paper has them, masks that a training can't move, the same after a kill, columns that go."""

import math

import pytest
import torch

from secateur.sparsity.spp.columns import Columns
from secateur.sparsity.spp.probabilities import increments
from spp_trainings import start_spp, train_in_portions, train_to_the_end


def test_steps_of_the_chances_as_the_paper_has_them() -> None:
    """A at the weakest, u A at the turning point, nothing at the n-th, and as much below nothing behind it."""
    count = 12
    turn = -math.log(0.25) / ((math.log(2) - math.log(0.25)) / count)
    steps_of_chances = increments(torch.tensor([0.0, turn, count, 2 * turn]), count)
    assert steps_of_chances.tolist() == pytest.approx([0.05, 0.0125, 0.0, 2 * 0.25 * 0.05 - 0.05], abs=1e-12)
    curve = increments(torch.arange(200).double(), count)
    assert bool((curve[1:] <= curve[:-1]).all()) and bool(torch.isfinite(curve).all())


def test_what_is_masked_takes_no_part_and_is_not_moved() -> None:
    """Neither by its gradient nor by momentum nor by weight decay, over many steps."""
    model, optimizer, spp = start_spp(every=1000)
    for columns in spp.columns:
        columns.chances.fill_(0.5)
    for step in range(6):
        masked = {columns.layer.name: columns.masked.clone() for columns in spp.columns}
        before = {columns.layer.name: columns.unmasked_weight.clone() for columns in spp.columns}
        for columns in spp.columns:
            assert float(columns.weight.detach()[columns.masked_entries()].abs().sum()) == 0
        train_in_portions(model, optimizer, step, step + 1)
        for columns in spp.columns:
            gone = masked[columns.layer.name][columns.group]
            now, then = (
                columns.layer.matrix(weight)[0]
                for weight in (columns.unmasked_weight.detach(), before[columns.layer.name])
            )
            assert torch.equal(now[:, gone], then[:, gone])
            assert step == 0 or bool((now[:, ~gone] != then[:, ~gone]).any())
    assert 0.3 < float(torch.cat([columns.masked for columns in spp.columns]).double().mean()) < 0.7


def test_masks_hold_through_an_accumulated_minibatch() -> None:
    """The same gradients from one batch of eight as from four of two, in evaluation of the norm's statistics."""
    one, other = start_spp(), start_spp()
    for (model, optimizer, spp), portions in ((one, 1), (other, 4)):
        model.norm.eval()
        for columns in spp.columns:
            columns.chances.fill_(0.4)
        train_in_portions(model, optimizer, 0, 3, portions)
    for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_weak_column_goes_and_one_that_was_weak_by_accident_recovers() -> None:
    model, optimizer, spp = start_spp(every=1)
    second = spp.columns[0]
    weak, strong = (int(index) for index in second.norms().argsort()[[0, -1]])
    second.chances[strong] = 0.6
    train_in_portions(model, optimizer, 0, 1)
    assert float(second.chances[weak]) == pytest.approx(0.05)
    assert float(second.chances[strong]) < 0.6
    train_to_the_end(model, optimizer, spp)
    assert bool(second.pruned[weak]) and not bool(second.pruned[strong])


@pytest.mark.parametrize("groups", ["columns", "channels"])
def test_every_layer_ends_at_its_ratio_is_scaled_once_and_is_free_at_once(groups: str) -> None:
    """While the other layer goes on: nothing but what is gone for good is masked from then on."""
    model, optimizer, spp = start_spp(groups=groups, keep={"columns": 0.4}, ratios={"third": 0.25}, every=1)
    finish, ended = Columns.finish, {}

    def watched(self: Columns) -> None:
        chance, weight = self.chances.clone(), self.unmasked_weight.clone()
        finish(self)
        assert self.layer.name not in ended
        expected = self.layer.matrix(weight)[0] * (1 - chance)[self.group].float()
        assert torch.allclose(self.layer.matrix(self.weight.detach())[0], expected, atol=1e-7)
        ended[self.layer.name] = (spp.steps, self.masked.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Columns, "finish", watched)
        while not spp.is_finished and spp.steps < 1000:
            train_in_portions(model, optimizer, spp.steps, spp.steps + 1)
            for columns in spp.columns:
                if columns.layer.name in ended:
                    assert torch.equal(columns.masked, ended[columns.layer.name][1])
    assert set(ended) == {"second", "third"} and ended["second"][0] != ended["third"][0]
    assert max(step for step, _ in ended.values()) == spp.steps < 1000
    for columns, ratio in zip(spp.columns, (0.6, 0.25), strict=True):
        assert int(columns.pruned.sum()) == math.ceil(ratio * len(columns.chances) - 1e-9)
    train_in_portions(model, optimizer, 1000, 1004)
    assert all(torch.equal(ended[columns.layer.name][1], columns.masked) for columns in spp.columns)
