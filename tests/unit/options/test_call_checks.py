"""Every public function, class and method answers an argument that it doesn't have."""

import copy
import dataclasses
import importlib
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest
import torch
from torch import nn

import secateur as sc
from secateur import demo, sparsity, stopping, training
from secateur.importance.scores import GroupScores
from secateur.options.call_checks import checked_calls
from secateur.report.report import Report
from secateur.tradeoff_curve.curve import TradeoffPoint

MODULES = (
    "secateur",
    "secateur.demo",
    "secateur.importance",
    "secateur.sparsity",
    "secateur.stopping",
    "secateur.training",
)
UNKNOWN = "an_option_that_nothing_has"
OTHERS = (BaseException, nn.Module)  # constructors of Python, and code that torch.export reads


def _public_objects() -> Iterator[Callable[..., Any]]:
    """Yield the functions and classes of the public modules, and the classes that their functions return."""
    for module in map(importlib.import_module, MODULES):
        for public in (getattr(module, name) for name in module.__all__):
            if callable(public) and getattr(public, "__module__", "").startswith("secateur"):
                yield public
                returned = None if isinstance(public, type) else get_type_hints(public).get("return")
                if isinstance(returned, type) and returned.__module__.startswith("secateur"):
                    yield returned

    yield from (GroupScores, Report, TradeoffPoint)  # attributes of these


def _calls(public: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the calls of a function, or of a class: its constructor and the methods that are defined here."""
    if not isinstance(public, type):
        yield public.__name__, public
        return
    if issubclass(public, OTHERS):
        return
    if not inspect.isabstract(public):
        yield public.__name__, public
    for owner in public.__mro__:
        for name, attribute in vars(owner).items():
            if name.startswith("_") or not owner.__module__.startswith("secateur"):
                continue
            if inspect.isfunction(attribute):
                yield f"{public.__name__}.{name}", lambda method=attribute, **options: method(object(), **options)
            elif isinstance(attribute, classmethod | staticmethod):
                yield f"{public.__name__}.{name}", getattr(public, name)


CALLS = {name: call for public in _public_objects() for name, call in _calls(public)}


def test_the_checked_calls_include_all_kinds() -> None:
    assert {
        "prune", "Shapley", "Result.export", "Report.to_html", "Scores.load", "Seconds", "SPP", "PivotResult.save",
        "text_batches", "shared_processes", "Tradeoff.save", "ExportedFile.to_dict", "RuleHandle",
    } <= set(CALLS)  # fmt: skip
    assert len(CALLS) > 100


TAKE_ANY = {"Tradeoff.pick"}  # its keywords are names of measures, which it checks


@pytest.mark.parametrize("call", sorted(set(CALLS) - TAKE_ANY))
def test_an_unknown_keyword_is_answered(call: str) -> None:
    with pytest.raises(sc.SecateurError, match=f"has no option '{UNKNOWN}'; known are"):
        CALLS[call](**{UNKNOWN: 1})


@pytest.fixture(scope="module")
def result() -> sc.Result:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    return sc.prune(model, torch.randn(40, 4), {"macs": 0.5}, by="l2", repair=None, allocation="uniform")


ANSWERS: dict[str, tuple[Callable[[sc.Result], object], str]] = {
    "samples": (lambda _: sc.Shapley(samples=50), r"`Shapley` has no option 'samples'; stop= says .*StandardError"),
    "a misspelling": (lambda _: sc.Shapley(coalitons=50), "did you mean 'coalitions'"),
    "of score": (lambda _: sc.Shapley(seed=1), "option of `secateur.score`"),
    "by place": (lambda _: sc.Shapley("permutation"), "`Shapley`: too many positional .* sampler="),
    "int8": (lambda result: result.export("small.onnx", int8=True), "`Result.export` has .* docs/how-to/onnx.md"),
    "opset": (lambda result: result.export("small.onnx", opset_version=17), "opset= is the version.*: opset=17"),
    "a folder": (lambda result: result.save(path="small"), "`Result.save` has .* folder= is the folder"),
    "nothing": (lambda result: result.save(), "`Result.save`: missing a required argument: 'folder'; .* are folder"),
    "an axis": (lambda result: result.plot(axs=None), "did you mean 'ax'"),
    "units of time": (lambda _: stopping.Seconds(sec=60), "`Seconds` has no option 'sec'; known are number"),
    "two numbers": (lambda _: stopping.Seconds(1, 2), "`Seconds`: too many positional"),
    "of a function": (lambda _: sc.text_batches(None, [], max_length=5), "did you mean 'length'"),
    "of a class method": (lambda _: sc.Scores.load(file="scores"), "path= is the file"),
    "no arguments": (lambda _: sc.criteria(1), "it takes no arguments"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_the_answer_says_what_to_write(case: str, result: sc.Result) -> None:
    call, advice = ANSWERS[case]
    with pytest.raises(sc.SecateurError, match=advice):
        call(result)


def test_errors_of_the_function_itself_stay() -> None:
    @checked_calls
    def work(number: Any) -> Any:
        return number + "text"

    with pytest.raises(TypeError, match="unsupported operand"):
        work(1)
    with pytest.raises(TypeError, match="object is not callable"):
        checked_calls(lambda function: function(unknown=1))(1)


def test_classes_and_functions_stay_what_they_are() -> None:
    assert list(inspect.signature(sc.Shapley).parameters)[-2:] == ["sampler", "protocol"]
    assert list(inspect.signature(sc.Result.export).parameters) == ["self", "path", "opset"]
    assert inspect.getsource(sc.text_batches).count("def ") == 1 and sc.Shapley.__doc__.startswith("Options")
    config = sc.Shapley(coalitions=50, stop=stopping.Seconds(3))
    for same in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), dataclasses.replace(config)):
        assert same == config and type(same) is sc.Shapley
    for public in (sc.criteria, sc.Scores.load, sparsity.SPP, training.TrainingMethod, demo.network):
        assert pickle.loads(pickle.dumps(public)) == public


def test_a_class_of_ones_own_inherits_its_methods() -> None:
    class Half(sc.importance.CriterionConfig):
        pass

    with pytest.raises(sc.SecateurError, match=r"`Half.changed_options` has no option 'only'"):
        Half().changed_options(only=1)


def test_a_method_that_is_called_without_an_object_ends_as_in_python() -> None:
    with pytest.raises(TypeError, match="self"):
        sc.Scores.save()  # type: ignore[call-arg]


def test_a_deprecation_warning_names_the_file_of_the_caller() -> None:
    with pytest.warns(DeprecationWarning, match="options= of the criterion") as records:
        sc.criterion("with-options", options=["weight"])
    assert records[0].filename == __file__
