"""Configurations of criteria: names are shorthand, what does not apply is refused, and one of one's own works."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.errors import NameMatchError, OptionError
from secateur.importance import (
    Banzhaf,
    CriterionConfig,
    CriterionContext,
    ExpectedGradients,
    IntegratedGradients,
    LeaveOneOut,
    OptimalBrainSurgeon,
    Owen,
    Shapley,
    Taylor,
    option_field,
)
from secateur.importance.criterion_keywords import configured_criterion
from secateur.importance.registry import find_criterion
from secateur.options import Option
from secateur.stopping import Coalitions

X, LABELS = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


@pytest.fixture(scope="module")
def network() -> sc.Network:
    torch.manual_seed(0)
    return sc.trace(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), X)


def scored(network: sc.Network, by: Any, **options: Any) -> sc.Scores:
    return sc.score(network, [(X, LABELS)], by=by, progress=False, **options)


@pytest.mark.parametrize("name", sc.criteria())
def test_a_name_is_shorthand_for_its_configuration(name: str) -> None:
    entry = sc.criteria()[name]
    if entry.config is not None:
        assert find_criterion(entry.config) == entry
        assert entry.label == name
        assert all(value == getattr(entry.config, option) for option, value in entry.options.items())


KEYWORDS: list[tuple[str, dict[str, Any], CriterionConfig]] = [
    ("shapley", {"estimator": "svarm", "coalitions": 60}, Shapley(sampler="svarm", coalitions=60)),
    ("shapley", {"protocol": "paper"}, Shapley(protocol="paper")),
    ("shapley", {"stop": Coalitions(40), "aggregate": 0.9}, Shapley(stop=Coalitions(40), aggregate=0.9)),
    ("banzhaf", {"coalitions": 60, "precision": "float32"}, Banzhaf(coalitions=60, precision="float32")),
    ("owen", {"estimator": "antithetic", "coalitions": 60}, Owen(sampler="antithetic", coalitions=60)),
    ("expected-gradients", {"coalitions": 60}, ExpectedGradients(coalitions=60)),
    ("taylor-gates-second", {"estimator": "exact"}, Taylor(order=2, hessian="exact")),
    ("taylor-weights-second", {}, Taylor(of="weights", order=2)),
    ("oracle", {"memory": 1 << 28}, LeaveOneOut(change="squared", memory=1 << 28)),
    ("obs", {"memory": 1 << 28}, OptimalBrainSurgeon(memory=1 << 28)),
]


@pytest.mark.parametrize(("name", "keywords", "config"), KEYWORDS, ids=str)
def test_keywords_of_a_name_are_fields_of_its_configuration(
    name: str, keywords: dict[str, Any], config: CriterionConfig, network: sc.Network
) -> None:
    assert configured_criterion(name, keywords).config == config
    by_name, by_config = scored(network, name, **keywords), scored(network, config)
    assert by_name.by == by_config.by == name
    assert by_name.of == by_config.of and by_name.note == by_config.note
    for group in by_name:
        assert torch.equal(by_name[group].values, by_config[group].values)
        assert by_name[group].stopped == by_config[group].stopped


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "what a criterion has not": (
        "l2",
        {"estimator": "nonsense", "coalitions": -5, "memory": -1},
        "estimator= does not apply to by='l2'; leave it out, or rank by owen, shapley, taylor-gates-second",
    ),
    "one option of it alone": ("l2", {"memory": -1}, "memory= does not apply to by='l2'.* rank by banzhaf, .*obs"),
    "a keyword of another variant": ("taylor-gates", {"estimator": "exact"}, "estimator= does not apply to by='taylor"),
    "a keyword beside a configuration": (Shapley(), {"coalitions": 9}, "set it there: by=Shapley\\(coalitions=...\\)"),
    "a keyword that it has not": (Taylor(), {"coalitions": 9}, "coalitions= does not apply to by=Taylor\\(\\)"),
    "a wrong value": ("shapley", {"coalitions": -5}, "coalitions=-5 .* from 1 up"),
    "an unknown sampler": ("shapley", {"estimator": "svam"}, "estimator='svam' is unknown; did you mean 'svarm'"),
    "a class": (Shapley, {}, "by is the class Shapley; give an instance of it, by=Shapley\\(\\)"),
    "resume": ("obs", {"resume": "scores"}, "resume= does not apply to by='obs'.* rank by banzhaf, expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_apply_is_refused(case: str, network: sc.Network) -> None:
    by, keywords, message = REFUSED[case]
    if "resume" in keywords:
        keywords = {"resume": scored(network, "l2")}
    with pytest.raises(OptionError if "unknown" not in message else NameMatchError, match=message):
        scored(network, by, **keywords)


WRONG = {
    "an unknown sampler": (lambda: Shapley(sampler="svam"), "sampler='svam' is unknown"),
    "a sampler of another game": (lambda: Owen(sampler="svarm"), "sampler='svarm' is unknown"),
    "no rule": (lambda: Shapley(stop=60), "stop=60 .* a rule of"),  # type: ignore[arg-type]
    "no coalitions": (lambda: Banzhaf(coalitions=0), "coalitions=0"),
    "a probability": (lambda: Banzhaf(probability=1.5), "probability=1.5"),
    "an aggregate": (lambda: Shapley(aggregate="median"), "aggregate='median' is unknown"),
    "beside the protocol": (lambda: Shapley(protocol="paper", sampler="svarm"), "sampler= does not apply to protocol"),
    "steps": (lambda: IntegratedGradients(steps=0), "steps=0"),
    "order": (lambda: Taylor(order=3), "order=3"),
    "of activations to second order": (lambda: Taylor(of="activations", order=2), "order=2 does not apply"),
    "a Hessian to first order": (lambda: Taylor(of="gates", hessian="exact"), "hessian='exact' does not apply"),
    "signs of gates": (lambda: Taylor(of="gates", signed=True), "signed=True does not apply to Taylor"),
    "gates by example": (lambda: Taylor(of="gates", by_example=True, gate_position="norms"), "gate_position='norms'"),
    "a change": (lambda: LeaveOneOut(change="square"), "did you mean 'squared'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_configurations_are_checked_on_construction(case: str) -> None:
    build, message = WRONG[case]
    with pytest.raises(sc.SecateurError, match=message):
        build()


def test_more_steps_of_integrated_gradients_come_nearer_to_what_the_group_adds(network: sc.Network) -> None:
    exact = scored(network, Shapley(sampler="exact", aggregate="mean"), ablation="zero")["0"].values.sum()
    sums = [scored(network, IntegratedGradients(steps=n), ablation="zero")["0"].values.sum() for n in (1, 64)]
    assert abs(sums[1] - exact) < 0.1 * abs(sums[0] - exact)


def test_banzhaf_values_at_another_probability_are_others_and_say_so(network: sc.Network) -> None:
    half, most = (scored(network, Banzhaf(probability=p, coalitions=400))["0"] for p in (0.5, 0.9))
    assert half.layout.startswith("banzhaf, ") and most.layout.startswith("banzhaf at 0.9, ")
    assert not torch.allclose(half.values, most.values, rtol=1e-3)


@dataclass(frozen=True, kw_only=True)
class Strength(CriterionConfig):
    power: float = option_field(1.0, Option("a number above 0", lambda value: value > 0))


def strength(context: CriterionContext, config: Strength) -> dict[str, Tensor]:
    return {group.name: torch.arange(group.size) ** config.power for group in context.groups}


def test_a_configuration_of_ones_own(network: sc.Network) -> None:
    with pytest.raises(OptionError, match="Strength is the configuration of no criterion"):
        scored(network, Strength())
    sc.criterion("test-strength", config=Strength(), uses="nothing")(strength)
    assert scored(network, "test-strength")["0"].values.tolist() == [0, 1, 2, 3, 4]
    assert scored(network, Strength(power=2))["0"].values.tolist() == [0, 1, 4, 9, 16]
    assert find_criterion(Strength(power=2)).label == "test-strength(power=2)"
    assert "test-strength" in str(sc.criteria()) and "Strength(power=1.0)" in str(sc.criteria())
    compared = sc.compare(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval(),
        [(X, LABELS)],
        by=[Strength(power=1.0), Strength(power=2.0)],
        keep={"units": 0.6},
        repair=None,
        progress=False,
    )
    assert {trial.by for trial in compared.trials} == {"test-strength", "test-strength(power=2.0)"}


def test_a_criterion_of_version_0_9_works_and_warns(network: sc.Network) -> None:
    options: dict[str, Any] = {}

    def old(evidence: Any) -> dict[str, Tensor]:
        options.update(evidence.options, examples=sum(cell.size for cell in evidence.cells))
        return {group.name: torch.zeros(group.size) for group in evidence.groups}

    with pytest.warns(DeprecationWarning, match="declare a configuration"):
        sc.criterion("test-old", options=("coalitions", "estimator"), estimators=("a", "b"))(old)
    with pytest.warns(DeprecationWarning, match="now context.microbatches"):
        scored(network, "test-old", coalitions=7)
    assert options == {"coalitions": 7, "estimator": None, "examples": 24}
    with pytest.raises(NameMatchError, match="estimator='c' is unknown"):
        scored(network, "test-old", estimator="c")
    with pytest.raises(OptionError, match="memory= does not apply to by='test-old'"):
        scored(network, "test-old", memory=5)


def test_options_of_every_criterion_are_documented() -> None:
    for entry in sc.criteria().values():
        if entry.config is not None and type(entry.config).__module__.startswith("secateur."):
            text = type(entry.config).__doc__ or ""
            assert all(option.name in text for option in fields(entry.config)), entry.name
