"""The training towards the dense network: what it compares, how inputs are changed, and how its schedule is found."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.evaluation.divergence import divergence
from secateur.recovery import repair_table
from secateur.recovery.head_features import HeadPaths
from secateur.recovery.training_task import TrainingSchedule, TrainingTask
from secateur.recovery.tune import tune
from secateur.recovery.weight_average import DECAY, WeightAverage
from secateur.utils.time_budget import TimeBudget
from tuned_networks import PooledImages, cut_by_norm, random_images

pytestmark = untrained_networks


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


def task(small: nn.Module, model: nn.Module, x: Tensor, **options: Any) -> TrainingTask:
    microbatches = [Batch((x,), {})]
    return TrainingTask(
        small, model, microbatches, microbatches, {"batch_size": 16, **options}, head=HeadPaths("head", "head")
    )


def test_a_rate_that_is_too_high_is_lowered() -> None:
    """The first rate gains nothing near the dense network: training goes on from the best weights at a slower one."""
    torch.manual_seed(0)
    model, x = PooledImages().eval(), random_images(64)
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
    model, x = PooledImages().eval(), random_images(64)
    small = cut_by_norm(model, x, 0.5, only=["body.0"])[0]
    schedule = tune(task(small, model, x, steps=30))
    assert schedule.augmentation in ("flips and shifts", "none")
    again = cut_by_norm(model, x, 0.5, only=["body.0"])[0]
    assert tune(task(again, model, x, steps=30)) == schedule
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in small.state_dict().items())


def test_a_schedule_is_repeated_with_its_changes_of_images_whatever_all_examples_allow() -> None:
    torch.manual_seed(0)
    model, x = PooledImages().eval(), random_images(64)
    schedule = TrainingSchedule(1e-3, (5,), "flips", "last features")  # of these images, shifts would be allowed, too
    small = cut_by_norm(model, x, 0.5, only=["body.0"])[0]
    assert tune(replace(task(small, model, x), schedule=schedule)) == schedule


def test_a_spent_time_budget_ends_the_training() -> None:
    torch.manual_seed(0)
    model, x = PooledImages().eval(), random_images(64)
    small, plan = cut_by_norm(model, x, 0.5, only=["body.0"])
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

    monkeypatch.setitem(repair_table.TRAINED, "tune", recorded)
    torch.manual_seed(0)
    model, x = PooledImages().eval(), random_images(64)
    small, plan = cut_by_norm(model, x, 0.5, only=["body.0"])
    sc.repair(small, model, plan, x, "tune", steps=30, learning_rate=0.01, progress=False)
    (fitted, asked, begin, schedule, judged), (examples, followed, start, _, end) = runs
    assert (fitted, examples) == (48, 64) and asked is None and followed == schedule
    assert not end.equal(judged) and small.get_parameter("body.0.weight").equal(end)
    assert begin.equal(start) and schedule is not None and sum(schedule.steps) > 0


def test_the_report_and_a_checkpoint_say_how_it_ran(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = PooledImages().eval(), random_images(64)
    options: dict[str, Any] = {"repair": ["refit", "tune"], "tuning": {"steps": 12}, "only": ["body.0"]}
    results = [
        sc.prune(model, x, {"macs": 0.5}, checkpoint=tmp_path / "run", progress=False, **options) for _ in range(2)
    ]
    first, second = (result.report.settings["repairs"][1] for result in results)
    assert first == second and "steps towards the dense network's last features" in first["training"]
    assert all(
        torch.equal(value, results[1].model.state_dict()[name]) for name, value in results[0].model.state_dict().items()
    )
