"""Options, budgets and criteria by the names of other libraries are answered with what to write here."""

import inspect
import shlex
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import secateur as sc
from secateur.allocation.budget import QUALITY_BOUNDS, UNITS, parse_keep
from secateur.cli.main import app
from secateur.importance.score import READ_BY_CRITERIA
from secateur.options.foreign import foreign_option
from secateur.options.foreign_names import FOREIGN_CRITERIA, FOREIGN_UNITS
from secateur.options.foreign_table import FOREIGN_OPTIONS

FUNCTIONS = (sc.trace, sc.score, sc.plan, sc.prune, sc.compare, sc.tradeoff, sc.save, sc.export, sc.Shapley)
MODEL = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
DATA = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))

CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "a removed fraction": ({"ratio": 0.3}, "keep={'macs': 0.7}"),
    "a removed fraction of another library": ({"pruning_ratio": 0.9}, "keep={'macs': 0.1}"),
    "a removed fraction that is no number": ({"sparsity": "half"}, "keep={'macs': 1 - sparsity}"),
    "a budget": ({"params": 0.5}, "keep={'params': 0.5}"),
    "a ranking": ({"importance": "l1"}, "by= is the ranking"),
    "a loss or a ranking": ({"criterion": nn.CrossEntropyLoss()}, "loss= the loss function"),
    "examples": ({"example_inputs": DATA}, "data= names the examples"),
    "a loader": ({"dataloader": [DATA]}, "data= names the examples"),
    "test examples": ({"val_loader": [DATA]}, "test= names the examples"),
    "layers": ({"ignored_layers": [MODEL[2]]}, "skip= names layers"),
    "training": ({"epochs": 3}, "repair=\\['refit', 'adapt', 'tune'\\]"),
    "capital letters": ({"Pruning_Ratio": 0.5}, "keep={'macs': 0.5}"),
    "a device": ({"device": "cuda"}, "model.to\\(device\\)"),
    "an optimizer": ({"optimizer": None}, "make another one from result.model.parameters()"),
    "no budget": ({"keep": 0.25}, "such as {'macs': 0.25}"),
    "a percentage alone": ({"keep": "50%"}, "such as {'macs': '50%'}"),
    "flops": ({"keep": {"flops": 0.5}}, "did you mean 'macs'"),
    "sparsity as a budget": ({"keep": {"sparsity": 0.75}}, "keep={'macs': 0.25}"),
    "magnitude": ({"keep": {"macs": 0.5}, "by": "magnitude"}, "did you mean 'l2'"),
    "Hessian": ({"keep": {"macs": 0.5}, "by": "Hessian"}, "did you mean 'obs'"),
}


@pytest.mark.parametrize("case", CALLS)
def test_prune_says_what_to_write(case: str) -> None:
    options, advice = CALLS[case]
    with pytest.raises(sc.SecateurError, match=advice):
        sc.prune(MODEL, DATA, **options)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(
        sc.SecateurError, match=r"`prune`: missing a required argument: 'data'; .* model, data, keep, by"
    ):
        sc.prune(MODEL, keep={"macs": 0.5})  # type: ignore[call-arg]


def test_a_function_is_offered_its_options_alone() -> None:
    network = sc.trace(MODEL, DATA[:1])
    with pytest.raises(sc.SecateurError, match="StandardError"):
        sc.score(network, DATA, by="shapley", n_samples=25)  # type: ignore[call-arg]
    with pytest.raises(sc.SecateurError, match="known are") as raised:
        sc.score(network, DATA, ratio=0.5)  # type: ignore[call-arg]
    assert "keep=" not in str(raised.value)
    with pytest.raises(sc.SecateurError, match="example_inputs= is one batch"):
        sc.trace(MODEL, dummy_input=DATA[:1])  # type: ignore[call-arg]


COMMANDS = {
    "prune --sparsity 0.7": "--keep macs=0.3",
    "prune --pruning-ratio=0.5": "--keep macs=0.5",
    "prune --ratio half": "--keep macs=1 - ratio",
    "prune --importance l1": "--by l2",
    "prune --ignored-layers fc": "--skip names layers",
    "score --output scores": "--out names",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_to_write(command: str) -> None:
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 2 and COMMANDS[command] in result.stderr and "Usage" not in result.stderr


def test_the_table_offers_what_there_is_and_hides_nothing() -> None:
    options = {function.__name__: set(inspect.signature(function).parameters) for function in FUNCTIONS}
    options["score"] |= set(READ_BY_CRITERIA)
    known = set().union(*options.values())
    assert {entry.option for entry in FOREIGN_OPTIONS} <= known | {""}
    for entry in FOREIGN_OPTIONS:
        reached = [
            name for name in entry.names.split() for names in options.values() if foreign_option(name, names) is entry
        ]
        assert reached, entry
    assert set(FOREIGN_UNITS.values()) <= {*UNITS, *QUALITY_BOUNDS} and not {*UNITS, *QUALITY_BOUNDS} & set(
        FOREIGN_UNITS
    )
    assert set(FOREIGN_CRITERIA.values()) <= set(sc.criteria()) and not set(sc.criteria()) & set(FOREIGN_CRITERIA)


def test_budgets_in_the_units_that_there_are_are_read() -> None:
    assert parse_keep({"macs": 0.5, "params": "2M"}) == {"macs": 0.5, "params": 2_000_000}
