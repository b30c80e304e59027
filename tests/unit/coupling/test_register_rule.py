"""Rules of operators that users define: registered, traced, cut, verified, and removed again."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from repository import ROOT
from secateur.coupling.rules.op_rule import OpRule
from secateur.coupling.rules.registry import built_in_rule, registered_rules
from secateur.data.batch import Batch
from secateur.errors import OperatorRuleError, OptionError
from secateur.masking.ablation import MeanAblation, run_masked


@torch.library.custom_op("secateur_tests::power_norm", mutates_args=())
def power_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root of the mean square over the last axis."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


@torch.library.custom_op("secateur_tests::bend", mutates_args=())
def bend(x: Tensor) -> Tensor:
    """An operator that works entry by entry."""
    return torch.sin(x)


power_norm.register_fake(lambda x, weight, eps: torch.empty_like(x))
bend.register_fake(torch.empty_like)
NAME = "secateur_tests::power_norm"


class PowerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.weight = width, nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == self.width
        return power_norm(x, self.weight, 1e-5)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 10), PowerNorm(10), nn.ReLU(), nn.Linear(10, 3)).eval()


def label_rule(op: Any) -> Tensor:
    units = op.axis_labels(op.activation("x"), -1)
    op.couple(units, op.axis_labels("weight", 0))
    op.read("x", len(op.shape) - 1, units)
    return op.broadcast(units, -1)


def masked_norm(present: Tensor, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    kept = x * present
    mean_square = kept.square().sum(-1, keepdim=True) / present.expand(x.shape).sum(-1, keepdim=True).clamp_min(1)
    return kept * torch.rsqrt(mean_square + eps) * weight


def attribute_rule(module: nn.Module, shapes: Any) -> dict[str, int]:
    return {"width": shapes["weight"][0]}


EVERYTHING: dict[str, Any] = {"masked": masked_norm, "attributes": {PowerNorm: attribute_rule}}


def test_an_operator_without_a_rule_freezes_what_it_touches() -> None:
    network = sc.trace(model(), torch.randn(5, 4))
    assert not network.groups
    (frozen,) = [frozen for frozen in network.frozen if frozen.name == "0"]
    assert (frozen.operator, frozen.reason) == ("power_norm", "there is no rule for this operator")


def test_a_registered_operator_is_cut_exactly_and_its_rule_can_be_removed() -> None:
    dense, x = model(), torch.randn(64, 4)
    kept = torch.tensor([0, 2, 3, 7])
    with sc.register_rule(power_norm, label_rule, **EVERYTHING):
        network = sc.trace(dense, x[:5])
        assert [str(member) for member in network["0"].members] == [
            "0.weight[0]",
            "0.bias[0]",
            "1.weight[0]",
            "3.weight[1]",
        ]
        plan = sc.plan(network, sc.score(network, by="l1"), {"units": 0.4})
        small = sc.cut(dense, plan)  # verifies itself against the masked run
        masked = run_masked(network, Batch((x,), {}), network.mask({"0": kept}), {})
    assert small[0].out_features == small[1].width == 4
    with torch.no_grad():  # an independent oracle: the norm of the kept columns alone
        hidden = dense[0](x)[:, kept]
        hidden = hidden / (hidden.square().mean(-1, keepdim=True) + 1e-5).sqrt() * dense[1].weight[kept]
        expected = torch.relu(hidden) @ dense[3].weight[:, kept].T + dense[3].bias
    assert torch.allclose(masked, expected, atol=1e-5)
    assert not sc.trace(dense, x[:5]).groups
    sc.register_rule(NAME, label_rule, **EVERYTHING).remove()


def test_several_coalitions_in_one_batch_are_normalised_each_by_itself() -> None:
    x = torch.randn(6, 4)
    with sc.register_rule(torch.ops.secateur_tests.power_norm, label_rule, **EVERYTHING):
        network = sc.trace(model(), x)
        masks = torch.stack([network.mask({"0": torch.arange(count)}) for count in (1, 4, 9)])
        with torch.no_grad():
            stacked = network.program.forward(Batch((x.repeat(3, 1),), {}), MeanAblation({}).handlers(network, masks))
        alone = [run_masked(network, Batch((x,), {}), mask, {}) for mask in masks]
    assert torch.allclose(stacked, torch.cat(alone), atol=1e-6)


def test_an_operator_can_take_the_rule_of_one_of_torch() -> None:
    dense = nn.Sequential(nn.Linear(4, 6), Bend(), nn.Linear(6, 2)).eval()
    assert not sc.trace(dense, torch.randn(2, 4)).groups
    with sc.register_rule(bend, "silu"):
        assert {group.name: group.size for group in sc.trace(dense, torch.randn(2, 4)).groups} == {"0": 6}


def borrowed_rule(name: str, **options: Any) -> OpRule:
    with sc.register_rule(bend, name, **options):
        return registered_rules["secateur_tests::bend"]


def test_a_borrowed_rule_has_all_that_torch_s_operator_has_unless_it_is_given() -> None:
    """The bounds of a clipping operator, by which repairs know it, and how gates pass."""
    relu, rule = built_in_rule("aten::relu"), borrowed_rule("relu")
    assert rule.clips is not None
    assert rule.gates == relu.gates == "passes"
    assert (rule.clips, rule.channels, rule.literals, rule.masked) == (
        relu.clips, relu.channels, relu.literals, relu.masked,
    )  # fmt: skip
    bounds: Any = lambda node: (-1.0, 1.0)  # noqa: E731
    assert borrowed_rule("relu", clips=bounds).clips is bounds
    assert borrowed_rule("silu", clips=bounds).clips is bounds


class Bend(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return bend(x)


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
        sc.trace(model(), torch.randn(5, 4))
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
        sc.trace(model(), torch.randn(5, 4))


def test_a_rule_that_couples_too_little_freezes_and_does_no_harm() -> None:
    """The trial cut shows that the width of the weight must follow."""
    with sc.register_rule(power_norm, lambda op: op.activation("x"), attributes={PowerNorm: attribute_rule}):
        network = sc.trace(model(), torch.randn(5, 4))
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
        sc.trace(model(), torch.randn(5, 4))


def test_a_literals_function_that_fails_is_named() -> None:
    def count_width(op: Any, result: Tensor) -> Any:
        yield "width", None, op.args["width"]

    message = f"literals= of {NAME} .in 1. fails with KeyError"
    with (
        sc.register_rule(power_norm, label_rule, masked=masked_norm, literals=count_width),
        pytest.raises(OperatorRuleError, match=message),
    ):
        sc.trace(model(), torch.randn(5, 4))


def test_the_page_that_shows_a_rule_runs() -> None:
    """The code blocks of docs/how-to/operator.md, one after the other."""
    page = (ROOT / "docs/how-to/operator.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 4
    exec(compile("\n".join(blocks), "operator.md", "exec"), {})


@torch.library.custom_op("secateur_tests::total", mutates_args=())
def total(summands: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(summands)).sum(0)


@total.register_fake
def _(summands: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(summands[0])


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(total([self.first(x), self.second(x)]))


def total_rule(op: Any) -> Tensor:
    first, second = op.activations("summands")
    op.couple(first, second)
    return first


def test_a_list_of_tensors_has_the_labels_of_each() -> None:
    torch.manual_seed(0)
    dense, x = Branches().eval(), torch.randn(5, 4)
    with sc.register_rule(total, total_rule):
        network = sc.trace(dense, x)
        (group,) = network.groups
        kept = torch.tensor([0, 3, 5])
        small = sc.cut(dense, sc.plan(network, sc.score(network, by="l2"), sizes={group.name: kept}))
    assert torch.equal(small.second.weight, dense.second.weight[kept])
    assert torch.equal(small.first.weight, dense.first.weight[kept])


def test_a_second_rule_is_refused() -> None:
    with sc.register_rule(power_norm, label_rule), pytest.raises(OptionError, match=f"{NAME} has a rule already"):
        sc.register_rule(power_norm, label_rule)


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
