"""Rules that are wrong are named with their operator, and do no harm."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from custom_operators import (
    EVERYTHING,
    NAME,
    PowerNorm,
    attribute_rule,
    label_rule,
    masked_norm,
    normed_model,
    power_norm,
)
from secateur.errors import OperatorRuleError, OptionError


def _wrong_shape(op: Any) -> Tensor:
    return op.activation("x")[..., :1]


def _unknown_labels(op: Any) -> Tensor:
    return torch.full(op.shape, 10**6)


def _misspelt(op: Any) -> Tensor:
    return op.activation("inputs")


def _two_reads(op: Any) -> Tensor:
    op.read("weight", 0, op.axis_labels("weight", 0))
    return label_rule(op)


WRONG: dict[str, tuple[Callable[[Any], Tensor], Any, str]] = {
    "shape": (_wrong_shape, masked_norm, r"returns \(2, 1\) where labels in the shape of the result, \(2, 10\)"),
    "labels": (_unknown_labels, masked_norm, "labels of an argument that has this shape"),
    "misspelt": (_misspelt, masked_norm, "fails with KeyError: 'inputs'; its arguments are x"),
    "two reads": (_two_reads, masked_norm, "reads 2 axes"),
    "masked values": (
        label_rule,
        lambda present, x, weight, eps: power_norm(x, weight, eps) + 2.0 * (torch.arange(10) == 3),
        r"all units are present: \S+ where the operator gives \S+, at index \(0, 3\); compute",
    ),
    "masked shape": (
        label_rule,
        lambda present, x, weight, eps: x.sum(-1),
        r"all units are present: shape \(2,\) where the operator gives \(2, 10\); compute",
    ),
    "masked fails": (label_rule, lambda present, x, weight, eps: x @ weight[:2], "fails with RuntimeError"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_rule_is_named_with_its_operator(fault: str) -> None:
    labels, masked, message = WRONG[fault]
    with (
        sc.register_rule(power_norm, labels, masked=masked),
        pytest.raises(OperatorRuleError, match=message) as failure,
    ):
        sc.trace(normed_model(), torch.randn(5, 4))
    assert f"{NAME} (in 1)" in str(failure.value)


def test_a_masked_form_that_no_rule_reads_for_is_warned_of() -> None:
    def without_reading(op: Any) -> Tensor:
        units = op.axis_labels(op.activation("x"), -1)
        op.couple(units, op.axis_labels("weight", 0))
        return op.broadcast(units, -1)

    with (
        sc.register_rule(power_norm, without_reading, **EVERYTHING),
        pytest.warns(UserWarning, match=f"masked= of {NAME} is not used in this network, as its rule reads no axis"),
    ):
        sc.trace(normed_model(), torch.randn(5, 4))


def test_a_rule_that_couples_too_little_freezes_and_does_no_harm() -> None:
    """The trial cut shows that the width of the weight must follow."""
    with sc.register_rule(power_norm, lambda op: op.activation("x"), attributes={PowerNorm: attribute_rule}):
        network = sc.trace(normed_model(), torch.randn(5, 4))
    assert not network.groups


@pytest.mark.parametrize(
    ("operator", "labels", "options", "message"),
    [
        (NAME, lambda: None, {}, "takes an OpContext"),
        (NAME, 3, {}, "give a function"),
        (NAME, label_rule, {"masked": lambda present, x: x}, "takes present, x, weight, eps"),
        (NAME, label_rule, {"literals": lambda op: ()}, "labels"),
        (NAME, "no_such_operator", {}, "there is no operator 'aten::no_such_operator'"),
        (NAME, "topk_", {}, "there is no operator"),
        ("secateur_tests::nothing", label_rule, {}, "there is no operator 'secateur_tests::nothing'"),
        ("power_norm", label_rule, {}, "its name with the namespace"),
        (torch.sin, label_rule, {}, "give an operator"),
        ("aten::conv2d", label_rule, {}, "has a rule already"),
    ],
)
def test_what_can_not_be_registered_is_refused(operator: Any, labels: Any, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sc.register_rule(operator, labels, **options)
    sc.register_rule(NAME, label_rule).remove()


@pytest.mark.parametrize(("dim", "label_count"), [("c", 10), (7, 10), (-1, 4)])
def test_a_rule_that_reads_no_axis_of_the_argument_is_named(dim: Any, label_count: int) -> None:
    def misread(op: Any) -> Tensor:
        units = op.axis_labels(op.activation("x"), -1)
        op.couple(units, op.axis_labels("weight", 0))
        op.read("x", dim, units[:label_count])
        return op.broadcast(units, -1)

    message = re.escape(f"{NAME} (in 1) calls op.read('x', {dim!r}, labels) with labels of ({label_count},)")
    with sc.register_rule(power_norm, misread), pytest.raises(OperatorRuleError, match=message):
        sc.trace(normed_model(), torch.randn(5, 4))


def test_a_literals_function_that_fails_is_named() -> None:
    def count_width(op: Any, result: Tensor) -> Any:
        yield "width", None, op.args["width"]

    message = f"literals= of {NAME} .in 1. fails with KeyError"
    with (
        sc.register_rule(power_norm, label_rule, masked=masked_norm, literals=count_width),
        pytest.raises(OperatorRuleError, match=message),
    ):
        sc.trace(normed_model(), torch.randn(5, 4))


@torch.library.custom_op("secateur_tests::root", mutates_args=())
def root(x: Tensor) -> Tensor:
    """An operator that gives NaN for negative numbers."""
    return torch.sqrt(x)


@torch.library.custom_op("secateur_tests::inverse", mutates_args=())
def inverse(x: Tensor) -> Tensor:
    """An operator that gives infinity for zeros."""
    return 1 / torch.relu(x)


root.register_fake(torch.empty_like)
inverse.register_fake(torch.empty_like)


class Finite(nn.Module):
    """An operator of one argument, whose result is made finite."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.nan_to_num(self.operator(x)))


def finite_model(operator: Callable[[Tensor], Tensor]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 10), Finite(operator), nn.Linear(10, 3)).eval()


def reading_rule(op: Any) -> Tensor:
    units = op.axis_labels(op.activation("x"), -1)
    op.read("x", 1, units)
    return op.broadcast(units, -1)


def test_a_rule_may_give_nan_where_the_operator_does() -> None:
    with sc.register_rule(root, reading_rule, masked=lambda present, x: torch.sqrt(x) * present):
        assert sc.trace(finite_model(root), torch.randn(8, 4)).groups[0].size == 10


def test_an_infinite_result_hides_no_wrong_value() -> None:
    with (
        sc.register_rule(inverse, reading_rule, masked=lambda present, x: 1 / torch.relu(x) + present),
        pytest.raises(OperatorRuleError, match="gives another result"),
    ):
        sc.trace(finite_model(inverse), torch.randn(8, 4))
