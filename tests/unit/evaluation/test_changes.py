"""Intervals of changes: exact small cases, and coverage of the truth."""

import math

import pytest
import torch

from secateur.evaluation.changes import Change


def change_of(values: list[float]) -> Change:
    change = Change.of(torch.tensor(values))
    assert change is not None
    return change


def test_a_change_of_nan_alone_is_none() -> None:
    assert Change.of(torch.tensor([math.nan])) is None


@pytest.mark.parametrize(("is_fraction", "text"), [(True, "+0.00 ± 0.00"), (False, "+0.0000 ± 0.0000")])
def test_a_loss_that_rounds_to_zero_has_no_minus_sign(is_fraction: bool, text: str) -> None:
    assert Change(-1e-6, 2e-6).text(is_fraction) == text


def test_one_value_has_no_finite_interval() -> None:
    assert change_of([0.3]).half_width == math.inf


def test_student_interval_of_three_values() -> None:
    change = change_of([1.5, 2.5, 3.5])  # standard deviation 1, quantile 4.302653 with two degrees of freedom
    assert change.mean == pytest.approx(2.5)
    assert change.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_examples_that_all_agree_have_the_interval_of_wilson() -> None:
    # the upper end for 0 of 16 is z**2 / (16 + z**2)
    assert change_of([0.0] * 16).half_width == pytest.approx(3.841459 / 19.841459, rel=1e-5)


def test_gains_and_losses_have_the_interval_of_agresti_and_min() -> None:
    values = [1.0] * 2 + [-1.0] * 4 + [0.0] * 24
    count, mean = 32, -2 / 32
    error = math.sqrt(((6 + 1) / count - mean**2) / count)
    assert change_of(values).half_width == pytest.approx(1.959964 * error + abs(mean + 2 / 30), rel=1e-6)


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.03), (0.0, 0.2), (0.03, 0.06), (0.1, 0.2)])
@pytest.mark.parametrize("count", [16, 64])
def test_intervals_of_hits_cover_the_truth(gain: float, loss: float, count: int) -> None:
    draws = torch.rand(2000, count, generator=torch.Generator().manual_seed(count))
    samples = (draws < gain).double() - (draws > 1 - loss).double()
    changes = [change_of(sample.tolist()) for sample in samples]
    covered = sum(abs(change.mean - (gain - loss)) <= change.half_width for change in changes) / len(changes)
    assert covered >= 0.93
