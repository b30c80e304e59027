"""The command line in one process: options from files, output for programs, names that complete, and mistakes."""

import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification
from typer.testing import CliRunner, Result

import secateur as sc
from expected_warnings import untrained_networks
from repository import ROOT
from secateur.allocation.build_sequence import ORDERS
from secateur.cli import completion, main
from secateur.cli.main import app
from secateur.evaluation.channel_steps import TARGETS
from secateur.options.table import OPTIONS
from secateur.recovery.repair_table import CLOSED_FORM, TRAINED

pytestmark = untrained_networks

WORKSHOP = """
import numpy as np
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3))

def make():
    torch.manual_seed(0)
    return Net(10)

def broken():
    return make().no_such_attribute

def weights():
    return make().state_dict()

model = make()
inputs = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
number = 7

def data():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 6, generator=generator), torch.arange(16) % 3) for _ in range(4)]

def ragged():
    return [(torch.zeros(length), 0) for length in (6, 5, 6, 6)]

def wide():
    return torch.randn(32, 7)

def nothing():
    pass
"""
MODEL = ("--model", "shop.py:make", "--data", "shop.py:data")
QUICK = ("--by", "l1", "--allocation", "uniform", "--repair", "none", "--out", "small")


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop.py").write_text(WORKSHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def secateur(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="secateur")


def test_options_come_from_a_file_and_the_command_line_wins(shop: Path) -> None:
    (shop / "prune.toml").write_text(
        'model = "shop.py:make"\ndata = "shop.py:data"\nby = "l1"\nrepair = ["refit"]\nallocation = "uniform"\n'
        'keep = {macs = 0.5}\nonly = ["0", "2"]\nnew-biases = false\nround_to = 2\nout = "small"\n'
    )
    done = secateur("prune", "--config", "prune.toml")
    assert done.exit_code == 0, done.output
    report = json.loads((shop / "small" / "report.json").read_text())
    assert report["keep"] == {"macs": 0.5} and report["settings"]["by"] == "l1"
    assert [repair["name"] for repair in report["settings"]["repairs"]] == ["refit"]
    assert all(group["kept"] % 2 == 0 for group in report["groups"].values())
    done = secateur("prune", "--config", "prune.toml", "--by", "l2", "--keep", "macs=0.8", "--out", "other")
    assert done.exit_code == 0 and "ranked by l2" in done.output and "kept macs 0.8" in done.output


def test_the_files_of_the_page_run(shop: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "command-line.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(python|toml)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    (shop / "shop.py").write_text(blocks["python"])
    (shop / "prune.toml").write_text(blocks["toml"].replace('skip = ["head"]\n', ""))
    done = secateur("prune", "--config", "prune.toml", "--by", "l1", "--repair", "none", "--json")
    assert json.loads(done.stdout)["report"]["groups"]["0"] == {"units": 16, "kept": 12, "kind": "neurons"}, done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('modle = "shop.py:make"', "`secateur prune` has no option 'modle'; did you mean 'model'?"),
        ("keep = {macs = [0.5, {}]}", "keep holds a dict; give numbers, texts"),
        ("as-program = 1", "as-program is an int; give true or false"),
        ("keep = {macs = 0.5", "is no TOML"),
        ("config = 'other.toml'", "has no option 'config'"),
    ],
)
def test_a_file_of_options_that_is_wrong_is_named(shop: Path, content: str, message: str) -> None:
    (shop / "prune.toml").write_text(content)
    done = secateur("prune", "--config", "prune.toml", *MODEL, *QUICK)
    assert done.exit_code == 2 and done.stderr.startswith("secateur: prune.toml"), done.output
    assert message in done.stderr


def test_json_is_all_of_standard_output(shop: Path) -> None:
    done = secateur("prune", *MODEL, *QUICK, "--keep", "macs=0.5", "--json")
    record = json.loads(done.stdout)
    assert record["folder"] == "small" and record["onnx"] is None
    assert record["report"]["pruned"]["cost"]["macs"] <= 0.5 * record["report"]["dense"]["cost"]["macs"]
    assert json.loads(secateur("report", "small", "--json").stdout)["title"] == "Net"
    inspected = json.loads(secateur("inspect", *MODEL, "--json").stdout)
    assert list(inspected["groups"]) == ["0", "2"] and inspected["inputs"] == ["6"]
    scored = json.loads(secateur("score", *MODEL, "--by", "l1", "--out", "scores", "--json").stdout)
    assert set(scored["groups"]) == {"0", "2"}
    listed = json.loads(secateur("criteria", "--json").stdout)["criteria"]
    assert [row["criterion"] for row in listed] == list(sc.criteria())
    options = ("--by", "l1", "--repair", "none", "--keep", "macs=0.8,0.5", "--json")
    curve = json.loads(secateur("tradeoff", *MODEL, *options, "--allocation", "uniform", "--out", "curve").stdout)
    assert [point["macs"] for point in curve["points"]] == [0.8, 0.5]
    compared = json.loads(secateur("compare", *MODEL, *options, "--out", "compared").stdout)
    assert len(compared["trials"]) == 2


def test_quiet_prints_nothing(shop: Path) -> None:
    done = secateur("prune", *MODEL, *QUICK, "--keep", "macs=0.5", "--quiet")
    assert done.exit_code == 0 and done.output == "" and (shop / "small" / "recipe.json").exists()
    assert "can't be met" in secateur("prune", *MODEL, *QUICK, "--keep", "macs=0.001", "--quiet").stderr


def test_criteria_are_listed_with_costs_labels_gradients_and_sources() -> None:
    lines = secateur("criteria").output.splitlines()
    assert lines[0].split("  ")[0] == "criterion" and len(lines) == len(sc.criteria()) + 1
    taylor = next(line for line in lines if line.startswith("taylor-gates "))
    assert all(text in taylor for text in ("1 forward, 1 backward", "if given", "yes", "Molchanov et al. 2019"))


def test_the_help_names_all_budgets_and_choices() -> None:
    text = " ".join(secateur("prune", "--help").output.split())
    for word in ("macs=", "params=", "bytes=", "units=", "latency=", "speedup=", "ms=", "loss=", "accuracy="):
        assert word in text
    for word in ("--removal", "--kinds", "[mean|zero|impute]", "|tune|none]", "|blocks]", "--device", "--config"):
        assert word in text


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("secateur prune --by ob", ["obs"]),
        ("secateur prune --repair refit,a", ["refit,adapt"]),
        ("secateur score --ablation z", ["zero"]),
        ("secateur compa", ["compare"]),
    ],
)
def test_the_shell_completes_names(words: str, completions: list[str]) -> None:
    settings = {"_SECATEUR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = CliRunner().invoke(app, [], prog_name="secateur", env=settings)
    assert done.output.split() == completions


def test_models_and_data_may_be_objects_classes_and_arrays(shop: Path) -> None:
    (shop / "classes.py").write_text(
        "from torch import nn\nclass Small(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))\n"
    )
    assert secateur("inspect", "--model", "shop.py:model", "--data", "shop.py:inputs").exit_code == 0
    assert secateur("inspect", "--model", "classes:Small", "--data", "shop.py:inputs").exit_code == 0


def test_models_of_libraries(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4)).save_pretrained(shop / "vit")
    (shop / "images.py").write_text("import torch\ndata = torch.randn(4, 3, 8, 8)\n")
    done = secateur("inspect", "--model", "hf:vit", "--data", "images.py:data")
    assert done.exit_code == 0 and "ViTForImageClassification" in done.output
    assert "is no folder with a config.json" in secateur("inspect", "--model", "hf:nowhere", *MODEL[2:]).stderr
    for name in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
        done = secateur("inspect", "--model", f"{name}:resnet18", *MODEL[2:])
        assert (
            done.exit_code == 2 and f"needs the package {name}" in done.stderr and f"pip install {name}" in done.stderr
        )


class Listed(ModuleType):
    """A library that lists models by name and makes them."""

    def list_models(self) -> list[str]:
        return ["resnet18", "resnet34", "vgg11"]

    def create_model(self, name: str, pretrained: bool) -> nn.Module:
        if pretrained:
            raise OSError("no connection")
        return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))

    def get_model(self, name: str, weights: str | None) -> nn.Module:
        return self.create_model(name, weights is not None)


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_models_of_listing_libraries(name: str, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Listed(name)
    monkeypatch.setitem(sys.modules, name, library)
    monkeypatch.setitem(sys.modules, f"{name}.models", library)
    save_file(library.create_model("", False).state_dict(), shop / "w.safetensors")
    model = ("--model", f"{name}:resnet18", *MODEL[2:])
    assert secateur("inspect", *model, "--weights", "w.safetensors").exit_code == 0
    assert "published weights: OSError: no connection; give --weights" in secateur("inspect", *model).stderr
    done = secateur("inspect", "--model", f"{name}:resnet-18", *MODEL[2:])
    assert f"{name} has no model 'resnet-18'; the nearest are resnet18" in done.stderr


KEEP = ("--keep", "macs=0.5")
MISTAKES = {
    "a misspelt command": (("prun", *MODEL), "No such command 'prun'"),
    "a misspelt option": (("prune", "--modle", "shop.py:make"), "No such option: --modle"),
    "no folder": (("prune", *MODEL, *KEEP), "Missing option '--out'"),
    "a class with arguments": (
        ("prune", "--model", "shop.py:Net", *MODEL[2:], *QUICK, *KEEP),
        "the class 'shop.py:Net' can't be called without arguments: TypeError",
    ),
    "a state dict": (("prune", "--model", "shop.py:weights", *MODEL[2:], *QUICK, *KEEP), "a state_dict holds weights"),
    "a model whose code fails": (("prune", "--model", "shop.py:broken", *MODEL[2:], *QUICK, *KEEP), "no_such"),
    "model and data swapped": (
        ("prune", "--model", "shop.py:data", "--data", "shop.py:make", *QUICK, *KEEP), "were --model and --data swapped"
    ),
    "a model for data": (("prune", *MODEL[:2], "--data", "shop.py:make", *QUICK, *KEEP), "is a model, and no data"),
    "a file that is missing": (("prune", "--model", "nowhere.py:make", *MODEL[2:], *QUICK, *KEEP), "no file nowhere"),
    "data that are missing": (("prune", *MODEL[:2], "--data", "shop.py:nothing", *QUICK, *KEEP), "gave None"),
    "rows of several lengths": (("prune", *MODEL[:2], "--data", "shop.py:ragged", *QUICK, *KEEP), "refuses inputs"),
    "inputs of another width": (("prune", *MODEL[:2], "--data", "shop.py:wide", *QUICK, *KEEP), "(32, 7)"),
    "an unknown unit": (("prune", *MODEL, *QUICK, "--keep", "mac=0.5"), "unknown unit 'mac'"),
    "a percentage": (("prune", *MODEL, *QUICK, "--keep", "macs=50"), "out of range"),
    "a bound of the wrong sign": (("prune", *MODEL, *QUICK, "--keep", "accuracy=0.01"), "is not a bound"),
    "two times": (("prune", *MODEL, *QUICK, "--keep", "ms=5", "--keep", "speedup=2"), "gives the time twice"),
    "no budget": (("prune", *MODEL, *QUICK), "--keep is missing"),
    "a comma for a point": (("prune", *MODEL, *QUICK, "--keep", "macs=0,5"), "'0,5'} is no number"),
    "a misspelt function": (
        ("prune", "--model", "shop.py:mak", *MODEL[2:], *QUICK, *KEEP), "shop.py has no 'mak'; did you mean 'make'?"
    ),
    "a file for the folder": (("prune", *MODEL, *KEEP, "--out", "shop.py"), "shop.py is a file; give a folder"),
    "a folder below a file": (("tradeoff", *MODEL, "--out", "shop.py/curve"), "shop.py is a file; give a folder"),
    "a folder for the page": (("inspect", *MODEL, "--page", "."), "it is a folder; give a file"),
    "an unknown bound": (
        ("tradeoff", *MODEL, "--out", "small", "--pick", "acuracy=-0.01"), "did you mean 'accuracy'?"
    ),
    "an unknown criterion": (("prune", *MODEL, *KEEP, "--by", "taylr", "--out", "small"), "did you mean 'taylor'?"),
    "an unknown ablation": (("prune", *MODEL, *QUICK, *KEEP, "--ablation", "meen"), "did you mean 'mean'?"),
    "an unknown kind": (("prune", *MODEL, *QUICK, *KEEP, "--kind", "neuron"), "did you mean 'neurons'?"),
    "an unknown repair": (
        ("prune", *MODEL, *KEEP, "--repair", "refitt", "--out", "small"), "did you mean 'refit'?"
    ),
    "an unknown allocation": (
        ("prune", *MODEL, *KEEP, "--allocation", "unifrom", "--out", "small"), "did you mean 'uniform'?"
    ),
    "an unknown target": (("prune", *MODEL, *QUICK, *KEEP, "--target", "cud"), "did you mean 'cuda'?"),
    "an unknown group": (("prune", *MODEL, *QUICK, *KEEP, "--skip", "1"), "no group is named '1'"),
    "an unknown device": (("prune", *MODEL, *QUICK, *KEEP, "--device", "gpu"), "--device gpu can't be used"),
    "a word for a number": (("prune", *MODEL, *QUICK, *KEEP, "--seed", "one"), "Invalid value for '--seed'"),
    "a folder without a report": (("report", "."), "holds no report"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_and_nothing_is_written(case: str, shop: Path) -> None:
    words, message = MISTAKES[case]
    done = secateur(*words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr, done.stderr
    assert not (shop / "small").exists() and "Traceback" not in done.output


def test_outputs_are_checked_before_anything_is_computed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.tradeoff", lambda *_, **__: pytest.fail("a curve was computed"))
    for words in (("--out", "shop.py"), ("--out", "curve", "--pick", "acuracy=-0.01")):
        assert secateur("tradeoff", *MODEL, *words).exit_code == 2
    (shop / "locked").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "locked is write-protected" in secateur("tradeoff", *MODEL, "--out", "locked/curve").stderr


def test_names_may_be_separated_by_commas_and_spaces(shop: Path) -> None:
    words = ("--by", "l1", "--repair", "mean, refit", "--allocation", "uniform, raw", "--out", "small")
    done = secateur("prune", *MODEL, *KEEP, *words)
    assert done.exit_code == 0, done.output
    steps = json.loads((shop / "small" / "report.json").read_text())["settings"]["repairs"]
    assert [step["name"] for step in steps] == ["mean", "refit"]


def test_weights_of_another_model(shop: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), shop / "other.pt")
    done = secateur("prune", *MODEL, *QUICK, *KEEP, "--weights", "other.pt")
    assert done.exit_code == 2 and "other.pt does not fit Net" in done.stderr


def test_the_choices_are_those_of_the_packages() -> None:
    assert OPTIONS["ablation"].names == completion.ABLATIONS
    assert ("auto", *ORDERS) == completion.ALLOCATIONS
    assert (*CLOSED_FORM, *TRAINED, "none") == completion.REPAIRS
    assert completion.TARGETS == TARGETS
    assert completion.completer(completion.registered_criteria)("taylor-s") == ["taylor-signed"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["by default", "a count of the user's", "a policy of the user's"],
)
def test_threads_wait_actively_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setattr(os, "environ", dict(variables))
    seen: list[str | None] = []
    monkeypatch.setattr(main, "app", lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")))
    main.main()
    assert seen == [expected]
