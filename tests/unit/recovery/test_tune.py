"""The training towards the dense network: what it compares, how inputs are changed, and how its schedule is found."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.evaluation.divergence import divergence
from secateur.recovery import chain
from secateur.recovery.head_features import HeadPaths, head_paths
from secateur.recovery.image_augmentation import ImageAugmentation, augmentation_for
from secateur.recovery.training_task import TrainingSchedule, TrainingTask
from secateur.recovery.tune import tune
from secateur.recovery.weight_average import DECAY, WeightAverage
from secateur.surgery.recipe import recipe_of
from secateur.utils.time_budget import TimeBudget

pytestmark = untrained_networks


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Pooled(nn.Module):
    """Class scores from the mean over all places of an image, so that flips change nothing."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = 20 * self.head(self.body(x).flatten(1))
        return scores


class Sided(nn.Module):
    """Two sums of an image: over its left half and over its right one."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.flatten(1, 2).chunk(2, dim=2)
        return 4 * torch.stack([first.mean((1, 2)), second.mean((1, 2))], 1)


def images(count: int = 40) -> Tensor:
    """Images of different brightness."""
    return torch.randn(count, 1, 1, 1, generator=seeded()) + 0.3 * torch.randn(count, 1, 16, 16, generator=seeded())


def test_shifted_and_flipped_images_are_the_reflected_ones() -> None:
    """Every change is one of the few that there can be: padded by reflection, cut out, and flipped or not."""
    x = torch.randn(30, 2, 16, 24, generator=seeded())
    changed = ImageAugmentation(flips=True, shifts=True).of(x, seeded())
    padded = F.pad(x, (3, 3, 2, 2), mode="reflect")  # an eighth of 24 and of 16
    for number in range(len(x)):
        crops = [padded[number, :, top : top + 16, side : side + 24] for top in range(5) for side in range(7)]
        assert any(changed[number].equal(crop) or changed[number].equal(crop.flip(2)) for crop in crops)
    assert not changed.equal(x)
    assert ImageAugmentation(flips=False, shifts=False).of(x, seeded()).equal(x)


def test_targets_stay_with_changed_images() -> None:
    target = torch.arange(30.0).view(30, 1, 1, 1).expand(30, 1, 16, 16)
    batch = Batch((images(30),), {}, target)
    changed = ImageAugmentation(flips=True, shifts=False).changed(batch, seeded())
    assert changed.target is target and not changed.args[0].equal(batch.args[0])


def test_changes_are_those_that_the_dense_network_is_invariant_to() -> None:
    torch.manual_seed(0)
    x = images()
    dark = x - torch.linspace(0, 2, 16)  # darker to the right
    pooled, sided = Pooled().eval(), Sided()
    assert augmentation_for(pooled, [Batch((x[:20],), {}), Batch((x[20:],), {})], 1.0) == ImageAugmentation(True, True)
    assert not augmentation_for(sided, [Batch((dark + 5 * torch.randn(40, 1, 1, 16),), {})], 1.0).flips
    assert not augmentation_for(nn.Linear(6, 3), [Batch((torch.randn(40, 6),), {})], 1.0)  # no images
    assert not augmentation_for(pooled, [Batch((x[:4],), {})], 1.0)  # too few to compare


def test_the_average_follows_the_weights() -> None:
    weight = torch.zeros(1)
    average, expected = WeightAverage([weight]), 0.0
    for step in range(1, 200):
        weight.fill_(float(step % 7))
        average.update()
        expected += (float(weight) - expected) * max(1 - DECAY, 1 / step)
    with average.swapped_in():
        assert float(weight) == pytest.approx(expected, rel=1e-4)
    assert float(weight) == 199 % 7


def cut(model: nn.Module, x: Tensor, keep: float, **options: Any) -> tuple[nn.Module, sc.Plan]:
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, by="l2", progress=False, **options), {"macs": keep})
    return sc.cut(model, plan), plan


def test_last_features_are_compared_where_all_of_them_are_kept() -> None:
    torch.manual_seed(0)
    model, x = Pooled().eval(), images()
    for only, expected in ((["body.0"], HeadPaths("head", "head")), (None, None)):
        small, plan = cut(model, x, 0.5, **({"only": only} if only else {}))
        assert head_paths(model, small, plan.network, recipe_of(model, plan)) == expected


class Tied(nn.Module):
    """The first layer's weight is that of the last one, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.narrow = nn.Linear(4, 8, bias=False), nn.Linear(8, 16), nn.Linear(16, 8)
        self.mixed = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.mixed(torch.relu(self.narrow(torch.relu(self.wide(self.first(x))))))
        return hidden @ self.first.weight


def test_a_last_layer_whose_weight_is_shared_has_no_features_to_compare() -> None:
    torch.manual_seed(0)
    model, x = Tied().eval(), torch.randn(20, 4)
    small, plan = cut(model, x, 0.8, only=["wide"])
    assert head_paths(model, small, plan.network, recipe_of(model, plan)) is None


def task(small: nn.Module, model: nn.Module, x: Tensor, **options: Any) -> TrainingTask:
    microbatches = [Batch((x,), {})]
    return TrainingTask(
        small, model, microbatches, microbatches, {"batch_size": 16, **options}, head=HeadPaths("head", "head")
    )


def test_a_rate_that_is_too_high_is_lowered() -> None:
    """The first rate gains nothing near the dense network: training goes on from the best weights at a slower one."""
    torch.manual_seed(0)
    model, x = Pooled().eval(), images(64)
    small = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in small.body.parameters():
            parameter.mul_(1 + 0.03 * torch.randn_like(parameter))
    before = float(divergence(small(x), model(x)).mean())
    schedule = tune(task(small, model, x, steps=90, learning_rate=0.01, augment=None))
    assert 0 < sum(schedule.steps) <= 90 and schedule.steps[0] == 0
    assert schedule.rates == tuple(0.01 / 4**number for number in range(len(schedule.steps)))
    assert schedule.targets == "last features" and schedule.augmentation == "none"
    assert float(divergence(small(x), model(x)).mean()) < 0.2 * before
    assert not any(parameter.grad is not None for parameter in small.parameters())
    assert all(torch.equal(*heads) for heads in zip(small.head.parameters(), model.head.parameters(), strict=True))


def test_the_best_of_changed_and_unchanged_images_is_kept() -> None:
    """Both are tried from the same weights, and give the same again."""
    torch.manual_seed(0)
    model, x = Pooled().eval(), images(64)
    small = cut(model, x, 0.5, only=["body.0"])[0]
    schedule = tune(task(small, model, x, steps=30))
    assert schedule.augmentation in ("flips and shifts", "none")
    again = cut(model, x, 0.5, only=["body.0"])[0]
    assert tune(task(again, model, x, steps=30)) == schedule
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in small.state_dict().items())


def test_a_schedule_is_repeated_with_its_changes_of_images_whatever_all_examples_allow() -> None:
    torch.manual_seed(0)
    model, x = Pooled().eval(), images(64)
    schedule = TrainingSchedule(1e-3, (5,), "flips", "last features")  # of these images, shifts would be allowed, too
    small = cut(model, x, 0.5, only=["body.0"])[0]
    assert tune(replace(task(small, model, x), schedule=schedule)) == schedule


def test_a_spent_time_budget_ends_the_training() -> None:
    torch.manual_seed(0)
    model, x = Pooled().eval(), images(64)
    small, plan = cut(model, x, 0.5, only=["body.0"])
    steps = iter(range(1000))
    budget = TimeBudget(20.0, clock=lambda: float(next(steps)))
    ended = task(small, model, x, steps=60)
    assert sum(tune(TrainingTask(**{**vars(ended), "is_time_up": budget.is_spent})).steps) <= 20


def test_a_training_that_is_kept_is_repeated_with_all_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second training starts from the same weights, and repeats the schedule that the first one found."""
    runs: list[tuple[int, TrainingSchedule | None, Tensor, TrainingSchedule | None, Tensor]] = []

    def recorded(task: TrainingTask) -> TrainingSchedule | None:
        before, examples = (
            task.small.get_parameter("body.0.weight").clone(),
            sum(microbatch.size or 1 for microbatch in task.microbatches),
        )
        schedule = tune(task)
        runs.append((examples, task.schedule, before, schedule, task.small.get_parameter("body.0.weight").clone()))
        return schedule

    monkeypatch.setitem(chain.TRAINED, "tune", recorded)
    torch.manual_seed(0)
    model, x = Pooled().eval(), images(64)
    small, plan = cut(model, x, 0.5, only=["body.0"])
    sc.repair(small, model, plan, x, "tune", steps=30, learning_rate=0.01, progress=False)
    (fitted, asked, begin, schedule, judged), (examples, followed, start, _, end) = runs
    assert (fitted, examples) == (48, 64) and asked is None and followed == schedule
    assert not end.equal(judged) and small.get_parameter("body.0.weight").equal(end)
    assert begin.equal(start) and schedule is not None and sum(schedule.steps) > 0


def test_the_report_and_a_checkpoint_say_how_it_ran(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Pooled().eval(), images(64)
    options: dict[str, Any] = {"repair": ["refit", "tune"], "tuning": {"steps": 12}, "only": ["body.0"]}
    results = [
        sc.prune(model, x, {"macs": 0.5}, checkpoint=tmp_path / "run", progress=False, **options) for _ in range(2)
    ]
    first, second = (result.report.settings["repairs"][1] for result in results)
    assert first == second and "steps towards the dense network's last features" in first["training"]
    assert all(
        torch.equal(value, results[1].model.state_dict()[name]) for name, value in results[0].model.state_dict().items()
    )


def test_features_of_one_of_two_heads_say_nothing_of_the_other() -> None:
    class TwoHeadsModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.policy, self.other, self.value = (nn.Linear(4, 16), nn.Linear(16, 3), nn.Linear(4, 16),
                                                              nn.Linear(16, 2))  # fmt: skip

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.policy(torch.relu(self.body(x))), self.value(torch.relu(self.other(x)))

    model, x = TwoHeadsModel(), torch.randn(8, 4)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l1"), sizes={"body": 0.5})
    assert head_paths(model, sc.cut(model, plan), network, recipe_of(model, plan)) is None
