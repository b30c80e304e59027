"""Targets that are class numbers, and those that nothing needs."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import secateur as sc
from checked_examples import CLASSES, EXAMPLES, CheckedNetwork, prune_quickly
from expected_warnings import untrained_networks
from secateur.errors import TargetError

pytestmark = untrained_networks


USABLE: dict[str, Callable[[], Any]] = {
    "labels of 32 bits": lambda: (EXAMPLES, CLASSES.int()),
    "labels of 16 bits": lambda: (EXAMPLES, CLASSES.short()),
    "labels of 8 bits": lambda: (EXAMPLES, CLASSES.to(torch.uint8)),
    "a list of labels": lambda: [(EXAMPLES, CLASSES.tolist())],
}


@pytest.mark.parametrize("kind", USABLE)
@pytest.mark.parametrize("by", ["obs", "taylor"])
def test_labels_of_any_integer_type_are_class_numbers(kind: str, by: str) -> None:
    expected, result = (prune_quickly(data=data, by=by) for data in ((EXAMPLES, CLASSES), USABLE[kind]()))
    assert result.report.dense.loss == pytest.approx(expected.report.dense.loss)
    assert result.report.dense.accuracy == expected.report.dense.accuracy
    assert all(torch.equal(result.plan.kept[name], expected.plan.kept[name]) for name in expected.plan.kept)


def test_truth_values_are_class_numbers() -> None:
    model = CheckedNetwork(lambda y: y[:, :2])
    as_numbers, as_truth = (
        prune_quickly(model, [(EXAMPLES, labels)], by="taylor") for labels in ((CLASSES > 0).long(), CLASSES > 0)
    )
    assert as_truth.report.dense.accuracy == as_numbers.report.dense.accuracy
    assert as_truth.report.dense.loss == as_numbers.report.dense.loss


@pytest.mark.parametrize(
    "target",
    [
        [{"box": EXAMPLES[:1]}] * 40,
        {"a": CLASSES, "b": EXAMPLES},
        ["cat"] * 40,
        [CLASSES, None],
        CLASSES[:7],
        CLASSES + 200,
    ],
)
def test_targets_that_nothing_needs_are_left_out_with_a_warning(target: Any) -> None:
    with pytest.warns(UserWarning, match="targets are left out, as no criterion needs them"):
        result = prune_quickly(data=[(EXAMPLES, target)], by="obs")
    expected = prune_quickly(data=[EXAMPLES], by="obs")
    assert torch.equal(result.model.first.weight, expected.model.first.weight)
    assert result.report.dense.loss == expected.report.dense.loss


def test_one_hot_labels_are_named() -> None:
    one_hot = F.one_hot(CLASSES).float()
    with pytest.warns(UserWarning, match=r"look like one-hot labels.*target.argmax\(1\)"):
        sc.score(sc.trace(CheckedNetwork(), EXAMPLES[:2]), [(EXAMPLES, one_hot)], by="taylor", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.score(sc.trace(CheckedNetwork(), EXAMPLES[:2]), [(EXAMPLES, one_hot * 0.9)], by="taylor", progress=False)


def test_tune_does_without_targets_of_another_kind() -> None:
    data = [(EXAMPLES, torch.randn(40, 7))]
    with pytest.warns(UserWarning, match="tune trains without targets: targets have shape"):
        prune_quickly(data=data, loss=lambda output, target: output.square().sum(1), repair="tune", tuning={"steps": 2})


def test_labels_none_of_which_counts_are_answered() -> None:
    ignored, one_counts = torch.full_like(CLASSES, -100), torch.full_like(CLASSES, -100)
    one_counts[-1] = 0
    with pytest.raises(TargetError, match=r"all labels are -100, .* give the labels of what counts, inputs alone"):
        prune_quickly(data=[(EXAMPLES[:20], ignored[:20]), (EXAMPLES[20:], ignored[20:])], by="taylor")
    prune_quickly(data=[(EXAMPLES[:20], one_counts[:20]), (EXAMPLES[20:], one_counts[20:])], by="taylor")
    with pytest.warns(UserWarning, match="targets are left out, as no criterion needs them: all labels are -100"):
        prune_quickly(data=[(EXAMPLES, ignored)], by="obs")
