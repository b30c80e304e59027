"""A cut model carries its cuts: it can be saved at any time, and loads onto a fresh model of the dense class."""

import copy
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import secateur as sc
from damaged import examples, make
from expected_warnings import untrained_networks
from repository import GOLDEN
from secateur.cli.main import app
from secateur.files.records import read_record
from secateur.report.saved_report import saved_report
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.result import load_pivoted
from secateur.surgery.apply_recipe import apply_recipe
from secateur.surgery.recipe import Recipe
from secateur.surgery.saved_recipe import SavedRecipe, SavedRecipe2, lineage_from_saved

pytestmark = untrained_networks

OLD = GOLDEN / "saved by 0.7"


def cut_once(model: nn.Module, by: str = "l2", **options: bool) -> nn.Module:
    network = sc.trace(model, examples()[:2])
    return sc.cut(model, sc.plan(network, sc.score(network, by=by), keep={"units": 0.7}), **options)


def train(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(examples()).square().mean().backward()
    optimizer.step()
    return model


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(examples())


def check_survives(model: nn.Module, folder: Path) -> None:
    """Saved, loaded, trained, saved and loaded again, it is the same bit for bit."""
    for round_ in range(2):
        sc.save(model, folder / str(round_))
        loaded = sc.load(make(), folder / str(round_))
        assert torch.equal(run(loaded), run(model))
        model = train(loaded)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_model_that_was_cut_step_by_step_can_be_saved(times: int, tmp_path: Path) -> None:
    model = make()
    for number in range(times):
        model = cut_once(model, ("l2", "l1")[number % 2])
    assert sum(parameter.numel() for parameter in model.parameters()) < 30 if times == 3 else True
    check_survives(model, tmp_path)


def test_copies_and_pickles_and_weights_of_others_keep_the_cuts(tmp_path: Path) -> None:
    model = cut_once(make())
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    copies[0].load_state_dict(train(copy.deepcopy(model)).state_dict())
    assert list(model.state_dict()) == list(make().state_dict())
    for number, network in enumerate(copies):
        check_survives(train(network), tmp_path / str(number))


def test_cut_in_place_repaired_and_with_other_dropouts(tmp_path: Path) -> None:
    model = make()
    network = sc.trace(model, examples()[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), keep={"units": 0.7})
    check_survives(sc.repair(sc.cut(model, plan), model, plan, examples(), "refit", progress=False), tmp_path / "a")
    check_survives(sc.cut(model, plan, inplace=True), tmp_path / "b")
    drops = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
    fresh = copy.deepcopy(drops)
    small = cut_once(drops, scale_dropout=True)
    sc.save(small, tmp_path / "c")
    assert sc.load(fresh, tmp_path / "c")[1].p == small[1].p < 0.5


def test_a_pruned_model_is_pruned_again_as_a_model_and_as_a_program(tmp_path: Path) -> None:
    first = sc.prune(make(), examples(), {"units": 0.7}, by="l2", repair=None, progress=False)
    for name, as_program in (("model", False), ("program", True)):
        again = sc.prune(
            first.model, examples(), {"units": 0.7}, by="l2", repair=None, progress=False, as_program=as_program
        )
        again.save(tmp_path / name)
        fresh = make()
        before = copy.deepcopy(fresh.state_dict())
        loaded = sc.load(fresh, tmp_path / name)
        assert torch.equal(run(loaded), run(again.model))
        if as_program:
            assert all(torch.equal(before[key], tensor) for key, tensor in fresh.state_dict().items())
            sc.save(copy.deepcopy(loaded), tmp_path / "copy of a program")
            assert torch.equal(run(sc.load(make(), tmp_path / "copy of a program")), run(loaded))


def test_models_that_were_never_cut_or_changed_since_are_refused(tmp_path: Path) -> None:
    with pytest.raises(sc.SecateurError, match="does not say how it was cut"):
        sc.save(make(), tmp_path)
    model = cut_once(make())
    model[4] = nn.Linear(model[4].in_features, 3)
    with pytest.raises(sc.SecateurError, match=r"4\.bias has shape \(3,\), where the cuts .* leave \(2,\)"):
        sc.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_the_api_saves_the_command_reports(tmp_path: Path) -> None:
    result = sc.prune(make(), examples(), {"units": 0.6}, by="l2", progress=False)
    result.save(tmp_path)
    output = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert output.exit_code == 0 and output.stdout == f"{result.report}\n" == (tmp_path / "report.txt").read_text()
    assert (tmp_path / "report.json").read_text() == result.report.to_json()
    sc.save(result.model, tmp_path)  # a model without a report: the old one is gone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.json", "weights.safetensors"]


def test_version_0_7_is_read() -> None:
    x = examples()
    wanted = {"pruned": [0.5218058, 0.1866062], "program": [0.5326282, 0.2065668]}
    assert torch.allclose(run(sc.load(make(), OLD / "pruned"))[0], torch.tensor(wanted["pruned"]))
    with pytest.raises(sc.SecateurError, match=r"saved by version 0\.7.*example_inputs"):
        sc.load(make(), OLD / "program")
    assert torch.allclose(run(sc.load(make(), OLD / "program", x[:2]))[0], torch.tensor(wanted["program"]))
    assert load_pivoted(make(), OLD / "pivoted", x[:2]).shape == (2, 2)
    assert "kept units 0.6" in saved_report(OLD / "pruned", False)
    assert sc.Scores.load(OLD / "checkpoint.safetensors")["0"].samples
    assert list(sc.Scores.load(OLD / "pruned" / "scores.safetensors")) == ["0", "2"]


def test_blocks_of_another_network_are_refused(tmp_path: Path) -> None:
    for name, density in (("one", 0.5), ("other", 0.3)):
        pivot(make(), examples()[:2], density, shape=(2, 2)).save(tmp_path / name)
    (tmp_path / "one" / "pivot.json").write_bytes((tmp_path / "other" / "pivot.json").read_bytes())
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(sc.SecateurError, match="does not belong to"):
        load_pivoted(model, tmp_path / "one", examples()[:2])
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_a_load_that_is_interrupted_leaves_the_model_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sc.save(cut_once(cut_once(make())), tmp_path)
    model = make().train()
    before, shown, modules = copy.deepcopy(model.state_dict()), repr(model), list(model)
    calls = []

    def interrupted(target: nn.Module, recipe: Recipe) -> None:
        apply_recipe(target, recipe)
        calls.append(recipe)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("secateur.surgery.prepared_load.apply_recipe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sc.load(model, tmp_path)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert repr(model) == shown and list(model) == modules and model.training
    monkeypatch.undo()
    parameter = model[0].weight
    assert sc.load(model, tmp_path)[0].weight is parameter  # an optimizer that holds it goes on


def test_a_new_result_over_one_of_0_7_leaves_none_of_its_files(tmp_path: Path) -> None:
    for source in ("program", "pivoted", "pruned"):
        shutil.copytree(OLD / source, tmp_path / source)
        (tmp_path / source / "mine.txt").write_text("not of the result")
        sc.save(cut_once(make()), tmp_path / source)
        names = sorted(path.name for path in (tmp_path / source).iterdir())
        assert names == ["mine.txt", "recipe.json", "weights.safetensors"]


@pytest.mark.parametrize(("folder", "title"), [("pruned", "Sequential"), ("program", "")])
def test_a_file_of_0_7_names_the_class_of_its_model_but_for_programs(folder: str, title: str) -> None:
    record = read_record(OLD / folder / "recipe.json", (SavedRecipe, SavedRecipe2))
    assert lineage_from_saved(record).title == title
