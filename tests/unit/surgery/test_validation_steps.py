"""Steps of the validation by trial cuts, with trials whose outcomes are written down; attributes that follow a cut."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.coupling.members import AttributeUpdate
from secateur.coupling.network import Kept
from secateur.masking.ablation import Means
from secateur.surgery import validate
from secateur.surgery.attribute_checks import _is_cut
from secateur.surgery.diagnose import _attribute_value
from secateur.surgery.recipe_attributes import norm_sizes
from secateur.surgery.replacements import CutMultiheadAttention
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_failures import Failure


def two_groups() -> tuple[nn.Module, sc.Network]:
    layers = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)
    model = nn.Sequential(*layers).eval()
    return model, sc.trace(model, torch.randn(6, 3))


class WrittenTrials(TrialCutter):
    """Trials of which those fail that a test says."""

    def __init__(self, model: nn.Module, fails: Callable[[Kept, Means], bool]) -> None:
        super().__init__(model)
        self.fails = fails

    def _run(self, network: sc.Network, kept: Kept, means: Means) -> Failure | None:
        return Failure("differs", None, -1) if self.fails(kept, means) else None


def test_a_group_that_fails_with_means_alone_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, network = two_groups()
    monkeypatch.setattr(validate, "pass_together", lambda *_: False)
    trials = WrittenTrials(model, lambda kept, means: bool(means) and "2" in kept)
    assert [group.name for group in validate._validate(trials, network, 0).groups] == ["0"]
    trials = WrittenTrials(model, lambda kept, means: False)
    assert [group.name for group in validate._validate(trials, network, 0).groups] == ["0", "2"]


def test_programs_that_pass_for_all_groups_are_not_sought_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    model, network = two_groups()
    _, better = two_groups()
    tried: list[Kept] = []

    def with_programs(trials: Any, network: sc.Network, shares: Kept, failure: Failure) -> sc.Network | None:
        tried.append(shares)
        return better if len(shares) in passing else None

    monkeypatch.setattr(validate, "with_module_programs", with_programs)
    shares = {group.name: torch.arange(2) for group in network.groups}
    failure = Failure("differs", None, -1)
    trials = WrittenTrials(model, lambda kept, means: "2" in kept)
    passing = {2}
    assert validate._with_programs(trials, network, shares, failure) is better
    assert [set(kept) for kept in tried] == [{"0", "2"}]
    passing = {1}
    assert validate._with_programs(trials, network, shares, failure) is better
    assert [set(kept) for kept in tried[1:]] == [{"0", "2"}, {"2"}]


@pytest.mark.parametrize(
    ("norm", "attributes"),
    [
        (nn.LayerNorm(6, elementwise_affine=False), {"normalized_shape": (4,)}),
        (nn.RMSNorm(6, elementwise_affine=False), {"normalized_shape": (4,)}),
        (nn.GroupNorm(1, 6, affine=False), {"num_channels": 4}),
        (nn.LayerNorm(6), None),
        (nn.GroupNorm(1, 6), None),
    ],
)
def test_sizes_of_norms_without_parameters_follow_their_input(norm: nn.Module, attributes: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Linear(3, 6), norm, nn.Linear(6, 2)).eval()
    network = sc.trace(model, torch.randn(5, 3))
    mask = network.mask({"0": torch.arange(4)})
    modules = dict(model.named_modules())
    assert norm_sizes(modules, network, mask) == ({} if attributes is None else {"1": attributes})
    assert norm_sizes(modules, network, network.mask({})) == {}


def test_a_position_that_another_module_of_the_class_does_not_have_has_no_value() -> None:
    module = nn.Identity()
    module.sizes = (3, 4)  # type: ignore[assignment]
    units = torch.arange(4)
    values = [_attribute_value(module, AttributeUpdate("", "sizes", position, units)) for position in range(3)]
    assert values == [3, 4, None]


def test_a_recipe_switches_the_fused_projection_of_attention_off_and_never_on() -> None:
    name = "_qkv_same_embed_dim"
    attention = CutMultiheadAttention(4, 2)
    for module, allowed in ((nn.MultiheadAttention(4, 2), True), (attention, True), (nn.Linear(4, 2), False)):
        assert _is_cut(module, name, True, False, set()) is allowed
        assert not _is_cut(module, name, False, True, set())


@pytest.mark.parametrize("heads", [[0, 2], [1]])
def test_torchs_fused_encoder_layer_does_not_run_with_cut_attention(heads: list[int]) -> None:
    """Without gradients torch runs a kernel in place of the layer's code, which knows no cut shape."""
    torch.manual_seed(0)
    layer, x = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True).eval(), torch.randn(3, 5, 8)
    model = nn.Sequential(layer, nn.Linear(8, 2)).eval()
    network = sc.trace(model, x)
    (name,) = [group.name for group in network.groups if group.kind == "heads"]
    plan = sc.plan(network, sc.score(network, by="l2"), {"macs": 1.0})
    small = sc.cut(model, replace(plan, kept={**plan.kept, name: torch.tensor(heads)}))
    with torch.no_grad():
        fused = small(x)
    assert torch.allclose(small(x), fused, atol=1e-6)
