"""Answers to objects that are no models, data, results or options, as new users give them."""

import copy
import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc

DATA = torch.randn(48, 8, generator=torch.Generator().manual_seed(1))
KEEP = {"macs": 0.5}
FAST: dict[str, Any] = {"by": "l2", "repair": None, "allocation": "uniform", "progress": False}


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.fixture(scope="module")
def result() -> sc.Result:
    return sc.prune(_model(), DATA, KEEP, **FAST)


class ModelProto:
    """A file of ONNX that was loaded."""


class ExportedProgram:
    """A program of torch.export."""


class Returns(nn.Module):
    """A network that returns a function of its scores."""

    def __init__(self, of: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layers, self.of = _model(), of

    def forward(self, x: Tensor) -> Any:
        return self.of(self.layers(x))


MODELS: dict[str, tuple[Any, str]] = {
    "a path": ("model.pt", r"a path names a file of weights: .*load_state_dict\(torch.load"),
    "a path object": (Path("model.pt"), "a path names a file of weights"),
    "weights": (_model().state_dict(), "make the model and call its load_state_dict"),
    "a checkpoint": ({"epoch": 3, "model": _model().state_dict()}, r"load_state_dict\(checkpoint\['model'\]\)"),
    "a checkpoint with the model": ({"epoch": 3, "net": _model()}, r"the model in it, checkpoint\['net'\]"),
    "an ensemble": ([_model(), _model()], "one of these models at a time"),
    "modules without a forward": (nn.ModuleList([_model()]), "ModuleList without a `forward`"),
    "modules by name": (nn.ModuleDict({"a": _model()}), "ModuleDict without a `forward`"),
    "an ONNX file": (ModelProto(), "ONNX file holds operators"),
    "an exported program": (ExportedProgram(), "module that it was exported from"),
    "a pipeline": (SimpleNamespace(model=_model()), r"give the `.model` of this SimpleNamespace"),
    "class numbers": (Returns(lambda scores: scores.argmax(1)), "forward return scores in place of class numbers"),
    "complex numbers": (Returns(lambda scores: scores * 1j), r"forward return real numbers, such as output.abs\(\)"),
    "texts": (Returns(lambda scores: "cat"), "forward return a tensor of numbers for each example|without a tensor"),
}


@pytest.mark.parametrize("case", MODELS)
def test_what_is_no_model_is_answered_with_what_to_give(case: str) -> None:
    model, advice = MODELS[case]
    with pytest.raises(sc.SecateurError, match=advice):
        sc.prune(model, DATA, KEEP, **FAST)


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "capital letters of a unit": ({"keep": {"MACs": 0.5}}, "did you mean 'macs'"),
    "capital letters of a criterion": ({"by": "L2"}, "did you mean 'l2'"),
    "capital letters of a kind": ({"kinds": "Channels"}, "did you mean 'channels'"),
    "numbers for names": ({"keep": None, "sizes": {0: 0.5}}, "the key 0; give the name of a group as text, '0'"),
    "test examples of no kind": ({"test": 5}, "test=: data is an int"),
    "no test examples": ({"test": []}, "test=: data gave no batches"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_answered_with_what_to_give(case: str) -> None:
    options, advice = OPTIONS[case]
    with pytest.raises(sc.SecateurError, match=advice):
        sc.prune(_model(), DATA, **{"keep": KEEP, **FAST, **options})


def test_an_exported_module_of_a_fixed_batch_size_says_how_to_go_on() -> None:
    exported = torch.export.export(_model(), (DATA[:2],)).module()
    with pytest.raises(sc.SecateurError, match=r"fixes axis 0 of that input at 2; .* a module that is not exported"):
        sc.prune(exported, DATA, KEEP, **FAST)


@pytest.mark.parametrize("name", ["parameters", "eval", "state_dict", "to", "forward"])
def test_a_result_that_is_taken_for_the_model_says_where_that_is(name: str, result: sc.Result) -> None:
    with pytest.raises(AttributeError, match=rf"'Result' object has no attribute '{name}'; .* is its .model"):
        getattr(result, name)
    assert not hasattr(result, "accuracy") and not hasattr(result, "__len__")


class ResultWithProperties(sc.Result):
    """A result that reads attributes that its model lacks."""

    @property
    def classes(self) -> Any:
        return self.model.num_classes

    @cached_property
    def train(self) -> Any:
        return self.plan.training  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "missing"), [("classes", "num_classes"), ("train", "training")])
def test_an_error_in_a_property_of_a_result_is_seen(name: str, missing: str, result: sc.Result) -> None:
    other = ResultWithProperties(result.model, result.plan, result.scores, result.report, result.recipe)
    with pytest.raises(AttributeError, match=rf"object has no attribute '{missing}'$"):
        getattr(other, name)
    with pytest.raises(AttributeError, match=r"no attribute 'parameters'; the pruned model is its .model"):
        other.parameters  # noqa: B018


def test_results_are_copied_with_models_of_their_own(result: sc.Result) -> None:
    for copied in (copy.deepcopy(result), copy.copy(result)):
        assert torch.equal(copied.model(DATA), result.model(DATA))
        assert torch.equal(copied.plan.kept["0"], result.plan.kept["0"]) and copied.plan.cost == result.plan.cost
    deep = copy.deepcopy(result)
    with torch.no_grad():
        deep.model[0].weight.zero_()  # type: ignore[index, union-attr, operator]
    assert result.model[0].weight.abs().sum() > 0  # type: ignore[index, union-attr, operator]
    assert deep.plan.network is result.plan.network and str(deep.report) == str(result.report)
    assert sc.cut(_model(), deep.plan)(DATA).shape == (48, 4)


def test_what_can_be_sent_to_another_process_is_named(result: sc.Result) -> None:
    for record in (result, result.plan, result.plan.network):
        with pytest.raises(sc.SecateurError, match=r"can't be pickled, .* result.save\(folder\)"):
            pickle.dumps(record)
    for record in (result.model, result.scores, result.report):
        assert type(pickle.loads(pickle.dumps(record))) is type(record)


PATHS: dict[str, Callable[[sc.Result], object]] = {
    "save": lambda result: result.save(None),  # type: ignore[arg-type]
    "scores": lambda result: result.scores.save(3),  # type: ignore[arg-type]
    "load": lambda _: sc.Scores.load(None),  # type: ignore[arg-type]
    "save_pretrained": lambda result: result.save_pretrained(result),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("method", PATHS)
def test_what_is_no_path_is_refused(method: str, result: sc.Result) -> None:
    with pytest.raises(sc.SecateurError, match="can't be used; give a path"):
        PATHS[method](result)


class CalledDirectly(nn.Module):
    """A module whose code is in `__call__`."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(torch.relu(self.hidden(x)))
        return output


def test_a_module_that_defines_its_call_in_place_of_forward_is_traced() -> None:
    assert [group.size for group in sc.trace(CalledDirectly(), torch.randn(2, 8)).groups] == [16]
