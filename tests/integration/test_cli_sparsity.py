"""spp, pivot, lean and unify, as real processes."""

from pathlib import Path

import pytest
import torch
from torch import nn

import secateur as sc
from commands import run_secateur, start_python, wait_for_file
from secateur.report.saved_report import saved_report
from secateur.sparsity import load_compressed, load_fast, load_pivoted

WORKSHOP = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 3))

def data():
    draws = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 2, 8, 8, generator=draws), torch.arange(16) % 3) for _ in range(4)]

def unlabelled():
    return [inputs for inputs, _ in data()]

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
"""
GIVEN = ("--model", "workshop:make", "--data", "workshop:data")
COMMANDS = {
    "spp": ("spp", "--ratio", "2=0.5", "--every", "1", "--steps", "5"),
    "pivot": ("pivot", "--density", "0.5", "--shape", "4x4", "--rounds", "2", "--steps", "5"),
    "lean": ("lean", "--keep", "kernels=0.5", "--rounds", "2", "--steps", "5"),
    "unify": ("unify", "--shape", "1x4", "--soft-steps", "10", "--steps", "5"),
}
ALL = {"recipe.json", "weights.safetensors", "kernels.json", "report.json", "report.html", "report.txt"}
FILES = {"spp": ALL, "lean": ALL, "pivot": {*ALL, "pivot.json"}, "unify": {*ALL, "model.blocks"}}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "workshop.py").write_text(WORKSHOP)
    return tmp_path


def fresh() -> nn.Sequential:
    layers = [nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 3))


def check_the_same_by_other_calls(name: str, folder: Path, model: nn.Module) -> None:
    """The fast network computes the same, and other files hold the same weights."""
    x = torch.randn(4, 2, 8, 8)
    with torch.no_grad():
        assert torch.allclose(load_fast(fresh(), folder)(x), model(x), atol=1e-4)
    others = {
        "unify": lambda: load_compressed(fresh(), folder / "model.blocks"),
        "pivot": lambda: load_pivoted(fresh(), folder, x).model,
        "spp": lambda: sc.load(fresh(), folder),
        "lean": lambda: sc.load(fresh(), folder),
    }
    other = others[name]()
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_trains_writes_and_is_read_again(name: str, shop: Path) -> None:
    done = run_secateur(shop, *COMMANDS[name], *GIVEN, "--test", "workshop:data", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert (
        "accuracy, in-sample" in done.stdout
        and "the same that were trained on" in done.stdout
        and "Warning" not in done.stderr
    )
    assert "x the speed" in done.stdout and "with the zeros in place" in done.stdout
    assert {path.name for path in (shop / "out").iterdir()} == FILES[name]
    assert (shop / "out" / "report.txt").read_text() in done.stdout
    assert saved_report(shop / "out", False) == (shop / "out" / "report.txt").read_text().rstrip()
    model = sc.load(fresh(), shop / "out")
    check_the_same_by_other_calls(name, shop / "out", model)
    zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters() if parameter.dim() > 1)
    assert zeros > 0.3 * sum(parameter.numel() for parameter in model[2].parameters())
    without = run_secateur(
        shop, *COMMANDS[name], "--model", "workshop:make", "--data", "workshop:unlabelled", "--out", "u"
    )
    assert without.returncode == 0 and "accuracy" not in without.stdout, without.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_process_goes_on_to_the_same_weights(name: str, shop: Path) -> None:
    command = (*COMMANDS[name], *GIVEN)
    assert run_secateur(shop, *command, "--out", "straight").returncode == 0
    killed = start_python(shop, "-m", "secateur", *command, "--out", "resumed", "--checkpoint", "states")
    wait_for_file(shop / "states", "*.safetensors")
    killed.kill()
    done = run_secateur(shop, *command, "--out", "resumed", "--checkpoint", "states")
    assert done.returncode == 0, done.stderr
    one, other = (sc.load(fresh(), shop / folder).state_dict() for folder in ("straight", "resumed"))
    assert all(torch.equal(one[key], other[key]) for key in one)


WRONG = {
    "a shape": ("unify", *GIVEN, "--shape", "4by4", "--out", "out"),
    "fractions": ("unify", *GIVEN, "--pruned", "0.9", "--unified", "0.2", "--out", "out"),
    "no layer": ("unify", *GIVEN, "--only", "nowhere", "--out", "out"),
    "a density": ("pivot", *GIVEN, "--density", "2", "--out", "out"),
    "a ratio": ("spp", *GIVEN, "--ratio", "half", "--out", "out"),
    "a ratio of no layer": ("spp", *GIVEN, "--keep", "columns=0.5", "--ratio", "nowhere=0.5", "--out", "out"),
    "shapes": ("unify", *GIVEN, "--shape", "nowhere=4x4", "--out", "out"),
    "a budget": ("spp", *GIVEN, "--keep", "macs=half", "--out", "out"),
    "no convolution": (
        "spp", "--model", "workshop:linear", "--data", "workshop:data", "--keep", "macs=0.5", "--out", "out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_of_sparsity_exits_2_and_writes_nothing(case: str, shop: Path) -> None:
    done = run_secateur(shop, *WRONG[case])
    assert done.returncode == 2 and done.stderr.startswith("secateur: "), done.stderr
    assert "Traceback" not in done.stderr and not (shop / "out").exists()
