"""Pruning while training from a model and data, in Python and on the command line."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import secateur as sc
from secateur.cli.main import app
from secateur.report.saved_report import saved_report
from secateur.training import loop
from secateur.training.prune_while_training import prune_while_training
from staged_network import Stages, minibatches

DATA = minibatches(4)
QUICK: dict[str, Any] = {"every": 2, "units_per_step": 2, "tuning_steps": 4, "batch_size": 8, "progress": False}


def make() -> nn.Module:
    return Stages().eval()


def data() -> list[Any]:
    return DATA


def test_it_gives_what_prune_gives_and_is_saved_loaded_and_reported_alike(tmp_path: Path) -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = prune_while_training(model, DATA, {"macs": 0.6}, test=DATA[:1], **QUICK)
    assert type(result) is sc.Result and type(result.model) is Stages
    assert result.plan.cost.macs <= 0.6 * result.plan.dense.macs
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.grad is not None for parameter in result.model.parameters())
    assert result.scores.by == "taylor-gates" and set(result.scores) == set(result.plan.kept)
    result.save(tmp_path / "small")
    again = sc.load(make(), tmp_path / "small")
    x = DATA[0][0]
    assert torch.equal(again(x), result.model.eval()(x))
    text = saved_report(tmp_path / "small", False)
    assert (
        text == f"{result.report}"
        and "in training towards dense" in text
        and "the same that were fitted to (in-sample)" in text
    )


def test_all_randomness_is_drawn_from_the_seed() -> None:
    result = prune_while_training(make(), DATA, {"units": 0.7}, **QUICK)
    again = prune_while_training(make(), DATA, {"units": 0.7}, **QUICK)
    other = prune_while_training(make(), DATA, {"units": 0.7}, seed=1, **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), again.model.parameters(), strict=True))
    assert any(
        a.shape != b.shape or not torch.equal(a, b)
        for a, b in zip(result.model.parameters(), other.model.parameters(), strict=True)
    )


def test_without_labels_it_trains_towards_the_dense_network_from_gradients_that_are_there() -> None:
    result = prune_while_training(make(), [x for x, _ in DATA], {"units": 0.9}, **QUICK)
    assert result.report.dense.accuracy is None
    assert all(bool(scores.values.any()) for scores in result.scores.values())


@pytest.mark.parametrize("by", ["l2", "oracle", lambda context: {g.name: torch.ones(g.size) for g in context.groups}])
def test_other_criteria_take_the_place_of_the_gates(by: Any) -> None:
    result = prune_while_training(make(), DATA, {"units": 0.9}, by, towards="labels", **QUICK)
    assert result.report.settings["by"] == (by if isinstance(by, str) else "<lambda>")


def test_frozen_parameters_are_trained_meanwhile_and_frozen_again() -> None:
    model = make().requires_grad_(False)
    small = prune_while_training(model, DATA, {"units": 0.9}, **QUICK).model
    assert not any(parameter.requires_grad for parameter in (*model.parameters(), *small.parameters()))


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prune_while_training(make(), DATA, {"units": 0.7}, **QUICK)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=count(0, 60).__next__))  # writes after each step
    step, steps = loop.TrainingLoop._loss_at, 0

    def stops(self: Any, *args: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(loop.TrainingLoop, "_loss_at", stops)
    options: dict[str, Any] = {**QUICK, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        prune_while_training(make(), DATA, {"units": 0.7}, **options)
    assert (tmp_path / "removals.safetensors").exists()
    again = prune_while_training(make(), DATA, {"units": 0.7}, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))


def test_two_percent_of_the_units_go_at_a_removal_by_default() -> None:
    default = prune_while_training(make(), DATA, {"units": 0.9}, **{**QUICK, "units_per_step": None})
    single = prune_while_training(make(), DATA, {"units": 0.9}, **{**QUICK, "units_per_step": 1})
    assert default.plan.network.units < 75  # 2 % are one unit
    assert {name: units.tolist() for name, units in default.plan.kept.items()} == {
        name: units.tolist() for name, units in single.plan.kept.items()
    }


def test_what_can_not_be_done_is_said_first() -> None:
    inputs = [x for x, _ in DATA]
    with pytest.raises(sc.SecateurError, match="needs labels; give"):
        prune_while_training(make(), inputs, {"units": 0.5}, towards="labels", **QUICK)
    with pytest.raises(sc.SecateurError, match="towards='teacher' is unknown; known are dense, labels"):
        prune_while_training(make(), DATA, {"units": 0.5}, towards="teacher", **QUICK)
    with pytest.raises(sc.SecateurError, match="no class scores"):
        prune_while_training(make().one, [torch.randn(2, 5, 8, 8)], {"units": 0.9}, **QUICK)
    with pytest.raises(sc.SecateurError, match="no criterion is named 'taylr'"):
        prune_while_training(make(), DATA, {"units": 0.5}, "taylr", **QUICK)
    with pytest.raises(sc.SecateurError, match="round_to"):
        prune_while_training(make(), DATA, {"units": 0.5}, round_to=0, **QUICK)


def test_the_command_writes_what_the_function_gives(tmp_path: Path) -> None:
    words = [
        "train",
        "--by",
        "taylor",
        "--model",
        f"{__name__}:make",
        "--data",
        f"{__name__}:data",
        "--keep",
        "macs=0.6",
    ]
    words += [
        "--every",
        "2",
        "--units-per-step",
        "2",
        "--steps",
        "4",
        "--batch-size",
        "8",
        "--out",
        str(tmp_path / "o"),
    ]
    output = CliRunner().invoke(app, words)
    assert output.exit_code == 0, output.output
    expected = prune_while_training(make(), DATA, {"macs": 0.6}, **QUICK)
    small = sc.load(make(), tmp_path / "o")
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), expected.model.parameters(), strict=True))
    assert "ranked by taylor-gates" in output.output and (tmp_path / "o" / "report.html").exists()


def test_the_command_scores_by_the_papers_protocol(tmp_path: Path) -> None:
    words = ["score", "--protocol", "paper", "--only", "stem", "--model", f"{__name__}:make"]
    output = CliRunner().invoke(app, [*words, "--data", f"{__name__}:data", "--out", str(tmp_path)])
    assert output.exit_code == 0, output.output
    model = make()
    network = sc.trace(model, DATA)
    expected = sc.score(network, DATA, protocol="paper", only="stem", progress=False)["stem"].values
    saved = sc.Scores.load(tmp_path / "scores.safetensors")["stem"].values
    assert torch.equal(saved, expected)
