"""Rules of operators that users define: registered, traced, cut, verified, and removed again."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from custom_operators import EVERYTHING, NAME, label_rule, normed_model, power_norm
from repository import ROOT
from secateur.coupling.rules.op_rule import OpRule
from secateur.coupling.rules.registry import built_in_rule, registered_rules
from secateur.data.batch import Batch
from secateur.errors import OptionError
from secateur.masking.ablation import MeanAblation, run_masked


@torch.library.custom_op("secateur_tests::bend", mutates_args=())
def bend(x: Tensor) -> Tensor:
    """An operator that works entry by entry."""
    return torch.sin(x)


bend.register_fake(torch.empty_like)


def test_an_operator_without_a_rule_freezes_what_it_touches() -> None:
    network = sc.trace(normed_model(), torch.randn(5, 4))
    assert not network.groups
    (frozen,) = [frozen for frozen in network.frozen if frozen.name == "0"]
    assert (frozen.operator, frozen.reason) == ("power_norm", "there is no rule for this operator")


def test_a_registered_operator_is_cut_exactly_and_its_rule_can_be_removed() -> None:
    dense, x = normed_model(), torch.randn(64, 4)
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
        network = sc.trace(normed_model(), x)
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
