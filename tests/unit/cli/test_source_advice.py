"""Texts for `--model` and `--data` that name no object of Python code: what to give in place of them."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur.cli.main import app

CODE = """
from torch import nn, randn

def make():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

inputs = randn(16, 4)
_hidden = 1
"""
MODELS = {
    "shop.py": "name what the file holds: shop.py:make (it has make, inputs)",
    "broken.py": "name what the file holds: broken.py:name",
    "w.pt": "a file of weights holds no code: name the model's code by --model file.py:name, and",
    "w.safetensors": "and the file by --weights",
    "w.pt2": "given by --program",
    "w.onnx": "name the code of the module that it was exported from",
    "pretrained": "for a folder that save_pretrained wrote, give hf:pretrained",
    "small": "name a function that returns secateur.load(model, folder)",
    "resnet18": "timm:NAME or torchvision:NAME",
    "shop.py:inputs": "'shop.py:inputs' is data, and no model; were --model and --data swapped?",
}
DATA = {
    "shop.py": "name what the file holds: shop.py:make (it has make, inputs)",
    "images.npy": "name a function that reads it and returns batches: file.py:name",
    "pretrained": "name a function that reads it and returns batches: file.py:name",
    "inputs": "give package.module:name or file.py:name",
}


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("def make(:\n")
    for file in ("pretrained/config.json", "small/recipe.json"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize("source", MODELS)
def test_a_model_that_is_not_code_is_refused_with_advice(source: str) -> None:
    done = CliRunner().invoke(app, ["inspect", "--model", source, "--data", "shop.py:inputs"])
    assert done.exit_code == 2 and MODELS[source] in done.stderr


@pytest.mark.parametrize("source", DATA)
def test_data_that_is_not_code_is_refused_with_advice(source: str) -> None:
    done = CliRunner().invoke(app, ["inspect", "--model", "shop.py:make", "--data", source])
    assert done.exit_code == 2 and DATA[source] in done.stderr


def test_a_report_of_no_folder_is_told_what_to_give() -> None:
    done = CliRunner().invoke(app, ["report", "small/recipe.json"])
    assert "small/recipe.json is a file; give a folder that `secateur prune` or `Result.save` wrote" in done.stderr
    assert "nowhere does not exist; give a folder" in CliRunner().invoke(app, ["report", "nowhere"]).stderr
