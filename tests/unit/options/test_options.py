"""Options and arguments of the public functions: each wrong one is refused before the network is traced."""

import functools
import inspect
import random
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.entry import entry_point
from secateur.errors import NameMatchError
from secateur.options import Option, check_name
from secateur.options.table import OPTIONS, classes_of

pytestmark = untrained_networks

FUNCTIONS = (sc.trace, sc.score, sc.plan, sc.cut, sc.repair, sc.compare, sc.load, sc.prune, sc.reachable)
CHECKED_ELSEWHERE = {"data", "example_inputs", "test", "keep", "by"}  # what they may be depends on more than their type
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


class Untraceable(nn.Module):
    """A network that shows whether anything was done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.calls = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.layers(x)
        return y


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_option_is_checked(function: Callable[..., Any]) -> None:
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            assert name in OPTIONS or name in CHECKED_ELSEWHERE or classes_of(hints[name]), name


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "by nothing": ({"by": None}, "by=None .* name of a criterion"),
    "by a list": ({"by": ["l2"]}, "by=\\['l2'\\] .* name of a criterion"),
    "only a number": ({"only": 3}, "only=3 .* a name, a glob, a module, a class of modules, or a list"),
    "skip names that are none": ({"skip": ["0", 2]}, "skip=.* a list of them"),
    "kinds a number": ({"kinds": 3}, "kinds=3"),
    "kinds nothing": ({"kinds": []}, "kinds=\\[\\]"),
    "kinds misspelt": ({"kinds": "neuron"}, "did you mean 'neurons'"),
    "allocation nothing": ({"allocation": None}, "allocation=None"),
    "allocation empty": ({"allocation": []}, "allocation=\\[\\]"),
    "allocation misspelt": ({"allocation": "unifrom"}, "did you mean 'uniform'"),
    "round_to text": ({"round_to": "8"}, "round_to='8' .* whole number of units"),
    "round_to half": ({"round_to": 2.5}, "round_to=2.5 .* whole number of units"),
    "floor text": ({"floor": "1"}, "floor='1'"),
    "floor NaN": ({"floor": float("nan")}, "floor=nan"),
    "rounds as a fraction": ({"rounds": 2.0}, "rounds=2.0 .* whole number of rounds"),
    "rounds": ({"rounds": 1.5}, "rounds=1.5 .* whole number of rounds"),
    "repair a number": ({"repair": 3}, "repair=3"),
    "repair misspelt": ({"repair": ["refit", "adopt"]}, "did you mean 'adapt'"),
    "tuning a number": ({"tuning": 3}, "tuning=3 .* a dict"),
    "steps text": ({"repair": "tune", "tuning": {"steps": "5"}}, "steps='5' .* whole number of steps"),
    "steps misspelt": ({"repair": "tune", "tuning": {"stesp": 5}}, "did you mean 'steps'"),
    "learning rate": ({"repair": "tune", "tuning": {"learning_rate": -1.0}}, "learning_rate=-1.0 .* above 0"),
    "an option of its own misspelt": ({"alocation": "uniform"}, "no option 'alocation'; did you mean 'allocation'"),
    "an option of score misspelt": ({"coalition": 9}, "no option 'coalition'; did you mean 'coalitions'"),
    "an unknown option": ({"xyz": 3}, "no option 'xyz'; known are model"),
    "coalitions text": ({"by": "shapley", "coalitions": "9"}, "coalitions='9'"),
    "coalitions below one": ({"by": "shapley", "coalitions": -5}, "coalitions=-5"),
    "memory text": ({"by": "shapley", "memory": "1G"}, "memory='1G' .* number of bytes"),
    "memory NaN": ({"by": "shapley", "memory": float("nan")}, "memory=nan"),
    "resume a path": ({"by": "shapley", "resume": "x"}, "resume is a str; give Scores, as `secateur.score`"),
    "stop a number": ({"by": "shapley", "stop": 60}, "stop=60 .* a rule of `secateur.stopping`"),
    "loss a number": ({"by": "shapley", "loss": 3}, "loss=3 .* a function"),
    "seed text": ({"seed": "0"}, "seed='0'"),
    "seed below zero": ({"seed": -1}, "seed=-1"),
    "progress text": ({"progress": "yes"}, "progress is a str; give True or False or None"),
    "ablation": ({"ablation": "means"}, "did you mean 'mean'"),
    "what a criterion does not read": ({"by": "l2", "estimator": "exact"}, "estimator= does not apply to by='l2'"),
    "estimators of another game": ({"by": "owen", "estimator": "svarm"}, "known are auto, controlled, antithetic"),
    "aggregates of means": ({"by": "taylor", "aggregate": "robust"}, "aggregate= does not apply to by='taylor'"),
    "what a protocol says": (
        {"by": "shapley", "protocol": "paper", "coalitions": 9},
        "coalitions= does not apply to protocol='paper'",
    ),
    "a quantile out of range": ({"by": "shapley", "aggregate": 1.5}, "aggregate=1.5 is unknown"),
    "an aggregate that is none": ({"by": "shapley", "aggregate": ["mean"]}, "aggregate=\\['mean'\\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_refused_before_the_network_is_traced(case: str) -> None:
    options, message = WRONG[case]
    model = Untraceable()
    with pytest.raises(sc.SecateurError, match=message):
        sc.prune(model, X, {"units": 0.5}, **{"progress": False, "by": "l2", **options})
    assert model.calls == 0


@pytest.fixture(scope="module")
def traced() -> dict[str, Any]:
    model = small_network()
    network = sc.trace(model, X)
    scores = sc.score(network, by="l2")
    plan = sc.plan(network, scores, {"units": 0.5})
    return {"model": model, "network": network, "scores": scores, "plan": plan, "x": X}


Call = Callable[[dict[str, Any]], Any]
MISUSE: dict[str, tuple[Call, str]] = {
    "a class": (lambda t: sc.trace(Untraceable, X), "model is the class Untraceable.*make one of it.*Untraceable\\("),  # type: ignore[arg-type]
    "a state dict": (lambda t: sc.trace(t["model"].state_dict(), X), "make the model and call its load_state_dict"),
    "a function": (lambda t: sc.trace(torch.relu, X), "not a torch.nn.Module; wrap a function in a module"),  # type: ignore[arg-type]
    "score a model": (lambda t: sc.score(t["model"], X), "network is a Sequential; give a Network"),
    "score with swapped arguments": (lambda t: sc.score(X, t["network"]), "network is a Tensor; give a Network"),  # type: ignore[arg-type]
    "plan with swapped arguments": (
        lambda t: sc.plan(t["scores"], t["network"], {"units": 0.5}),
        "network is a Scores; give a Network.*were network and scores swapped",
    ),
    "plan without scores": (lambda t: sc.plan(t["network"], {"0": X}, {"units": 0.5}), "scores is a dict; give Scores"),  # type: ignore[arg-type]
    "cut a network": (lambda t: sc.cut(t["network"], t["plan"]), "model is a Network.*give the model that was traced"),
    "cut with swapped arguments": (lambda t: sc.cut(t["plan"], t["model"]), "model is a Plan, not a torch.nn.Module"),
    "cut with a path": (lambda t: sc.cut(t["model"], "plan.json"), "plan is a str; give a Plan"),  # type: ignore[arg-type]
    "cut with parameters": (
        lambda t: sc.cut(t["model"], t["plan"], optimizer=t["model"].parameters()),
        "optimizer is a generator; give an optimizer of torch.optim or None",
    ),
    "repair without a plan": (lambda t: sc.repair(t["model"], t["model"], X, X), "plan is a Tensor; give a Plan"),  # type: ignore[arg-type]
    "repair misspelt": (
        lambda t: sc.repair(t["model"], t["model"], t["plan"], X, hwo="mean"),
        "no option 'hwo'; did you mean 'how'",
    ),
    "trace misspelt": (lambda t: sc.trace(t["model"], X, kind="heads"), "`trace` has no option 'kind'; did you mean"),  # type: ignore[call-arg]
    "load from nothing": (lambda t: sc.load(t["model"], None), "folder=None .* a path"),  # type: ignore[arg-type]
    "load onto a class": (lambda t: sc.load(nn.Sequential, "small"), "model is the class Sequential"),  # type: ignore[arg-type]
    "compare options": (
        lambda t: sc.compare(t["model"], X, by=("l2",), options={"l2": {"coalitions": 9}}),
        "coalitions= does not apply to by='l2'",
    ),
    "compare misspelt": (
        lambda t: sc.compare(t["model"], X, by=("shapley",), options={"shapley": {"coalition": 9}}),
        "did you mean 'coalitions'",
    ),
    "compare options that are none": (
        lambda t: sc.compare(t["model"], X, by=("l2",), options={"l2": 3}),  # type: ignore[dict-item]
        "options=3 .* give a dict",
    ),
    "compare by a number": (lambda t: sc.compare(t["model"], X, by=3), "by=3 .* name of a criterion"),  # type: ignore[arg-type]
    "curves of another length": (
        lambda t: sc.plan(t["network"], t["scores"], {"units": 0.5}, allocation="loss", curves={"0": torch.zeros(3)}),
        r"curves\['0'\] is a tensor of shape \(3,\); give a finite tensor \(13,\)",
    ),
    "curves of other groups": (
        lambda t: sc.plan(t["network"], t["scores"], {"units": 0.5}, allocation="loss", curves={"5": torch.zeros(13)}),
        r"curves\['0'\] is None",
    ),
    "options of a criterion alone": (
        lambda t: sc.score(t["network"], by="l2", estimator="nonsense", coalitions=-5),
        "coalitions=-5|estimator= does not apply",
    ),
}


@pytest.mark.parametrize("case", MISUSE)
def test_wrong_arguments_say_what_to_give(case: str, traced: dict[str, Any]) -> None:
    call, message = MISUSE[case]
    with pytest.raises(sc.SecateurError, match=message):
        call(traced)


def test_scores_of_a_criterion_may_be_arrays_or_lists(traced: dict[str, Any]) -> None:
    values = torch.arange(12, dtype=torch.float64)
    forms: list[Any] = [values, values.numpy(), values.tolist()]
    for form in forms:
        scores = sc.score(traced["network"], by=lambda context, form=form: {"0": form})
        assert torch.equal(scores["0"].values, values)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "gave None; it must return a dict"),
        ({"0": "high"}, "gave a str for 0"),
        ({"0": [1.0, None]}, "gave a list for 0"),
        ({"0": np.zeros(5)}, "scores of shape \\(5,\\) for 0, which has 12 units"),
    ],
)
def test_scores_of_a_criterion_that_are_none(scores: Any, message: str, traced: dict[str, Any]) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        sc.score(traced["network"], by=lambda context: scores)


@pytest.mark.parametrize(
    ("aggregate", "message"),
    [
        (lambda values: values.mean(1) * float("nan"), "aggregate= gave NaN or infinity for 12 of 12 units"),
        (lambda values: None, "aggregate= gave None"),
        (lambda values: values.mean(), "aggregate= gave a tensor of shape \\(\\)"),
    ],
)
def test_an_aggregate_that_gives_no_scores_ends(aggregate: Any, message: str, traced: dict[str, Any]) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        sc.score(traced["network"], X[:8], aggregate=aggregate, progress=False)


def test_the_lowest_quantile_is_not_taken_for_none(traced: dict[str, Any]) -> None:
    group_scores = sc.score(traced["network"], X[:8], aggregate=0.0, protocol="paper", progress=False)["0"]
    assert group_scores.per_example is not None
    assert torch.allclose(group_scores.values, group_scores.per_example.amin(1))


def test_all_global_random_states_are_left_alone() -> None:
    @entry_point
    def draw() -> float:
        return random.random() + float(np.random.rand()) + float(torch.rand(()))

    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
    draw()
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index]


def test_the_callers_modes_do_not_matter() -> None:
    def modes() -> tuple[bool, bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16)
    callers: list[Callable[[], Any]] = [torch.no_grad, torch.inference_mode, torch.enable_grad, autocast]
    for caller in callers:
        with caller():
            before = modes()
            assert entry_point(modes)() == (True, False, False)
            assert modes() == before


def test_a_model_made_under_inference_mode_is_named() -> None:
    with torch.inference_mode():
        model = small_network()
    with pytest.raises(sc.SecateurError, match=r"0\.weight .* made under torch\.inference_mode.*copy\.deepcopy"):
        sc.prune(model, X, {"units": 0.5})


def test_old_names_of_options_warn_and_mean_the_same(traced: dict[str, Any]) -> None:
    network, x = traced["network"], traced["x"]
    current = sc.score(network, x, by="leave-one-out", ablation="impute", progress=False)
    with pytest.warns(DeprecationWarning, match="removal='refit' is now ablation='impute'") as caught:
        old: Any = {"removal": "refit"}
        renamed = sc.score(network, x, by="leave-one-out", progress=False, **old)
    assert caught[0].filename == __file__
    assert renamed.note == current.note == f"{len(x)} examples, impute ablation"
    assert all(torch.equal(renamed[name].values, current[name].values) for name in current)
    with pytest.raises(sc.SecateurError, match="removal= is the old name of ablation="):
        sc.score(network, x, by="l2", ablation="zero", progress=False, **{"removal": "zero"})  # type: ignore[arg-type]
    with pytest.warns(DeprecationWarning, match="removal='zero' is now ablation='zero'"):
        options: Any = {"leave-one-out": {"removal": "zero"}}
        sc.compare(traced["model"], x, by=["leave-one-out"], keep={"units": 0.5}, options=options, progress=False)


def test_an_option_of_a_type_that_its_test_can_not_compare_is_refused() -> None:
    option = Option("a number above 0", lambda value: value > 0)
    with pytest.raises(sc.errors.OptionError, match=r"power='x' \(str\) can't be used; give a number above 0"):
        option.check("power", "x")


@pytest.mark.parametrize(("name", "hint"), [("onnx", "did you mean 'onnxruntime'"), ("on", "; known are")])
def test_a_shortened_name_is_completed(name: str, hint: str) -> None:
    with pytest.raises(NameMatchError) as error:
        check_name(name, ("cpu", "onnxruntime"), "target=onnx")
    assert hint in str(error.value) and ("did you mean" in str(error.value)) == ("did" in hint)


def test_a_name_among_further_words_is_offered() -> None:
    with pytest.raises(NameMatchError, match="no kind of units is named 'key-value heads'; did you mean 'heads'"):
        check_name("key-value heads", ("neurons", "heads", "blocks"), "no kind of units is named")


@pytest.mark.parametrize("name", ["neurons,heads", "neurons, heads", "heads,heads,neurons"])
def test_names_that_are_joined_by_commas_are_answered_by_how_several_are_given(name: str) -> None:
    with pytest.raises(NameMatchError, match=r"these are [23] names: give a list of them, or the option once for each"):
        check_name(name, ("neurons", "heads", "blocks"), "no kind of units is named")
    with pytest.raises(NameMatchError, match=r"known are neurons, heads"):
        check_name("neurons,hats", ("neurons", "heads"), "no kind of units is named")
