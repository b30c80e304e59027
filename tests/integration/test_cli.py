"""The command line, as real processes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import secateur as sc
from commands import run_secateur, words_of

WORKSHOP = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))

def data():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 6, generator=generator), torch.arange(16) % 3) for _ in range(4)]

def nothing():
    return []

number = 7
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "workshop.py").write_text(WORKSHOP)
    return tmp_path


MODEL = ("--model", "workshop:make", "--data", "workshop:data")


def test_prune_report_and_load(shop: Path) -> None:
    words = "--keep", "macs=0.5", "--out", "small", "--test", "workshop:data", "--seconds", "0.001"
    done = run_secateur(shop, "prune", *MODEL, *words)
    assert done.returncode == 0, done.stderr
    assert "accuracy, in-sample" in done.stdout and "64 of the 64 test examples are also among" in done.stdout
    assert "left out for want of time: curves" in done.stdout and "left out, so that it takes" in done.stderr
    report = json.loads((shop / "small" / "report.json").read_text())
    assert report["pruned"]["cost"]["macs"] <= 0.5 * report["dense"]["cost"]["macs"]
    again = run_secateur(shop, "report", "small")
    assert again.stdout.strip() in done.stdout
    assert json.loads(run_secateur(shop, "report", "small", "--json").stdout) == report
    torch.manual_seed(3)
    fresh = torch.nn.Sequential(
        torch.nn.Linear(6, 10), torch.nn.ReLU(), torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    assert sc.load(fresh, shop / "small")[0].out_features < 10


def test_weights_from_a_file(shop: Path) -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 10), torch.nn.ReLU(), torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    save_file(model.state_dict(), shop / "weights.safetensors")
    torch.save(model.state_dict(), shop / "weights.pt")
    scores = []
    for suffix in ("safetensors", "pt"):
        words = ("--weights", f"weights.{suffix}", "--by", "l1", "--out", suffix)
        assert run_secateur(shop, "score", *MODEL, *words).returncode == 0
        scores.append(sc.Scores.load(shop / suffix / "scores.safetensors"))
    expected = model[0].weight.detach().double().abs().sum(1)
    for group_scores in scores:
        assert torch.allclose(group_scores["0"].values, expected)


def test_inspect_and_score(shop: Path) -> None:
    inspected = run_secateur(shop, "inspect", *MODEL)
    assert inspected.returncode == 0
    assert "18 units in 2 groups" in inspected.stdout and "of units" in inspected.stdout
    drawn = run_secateur(shop, "inspect", *MODEL, "--page", "network.html", "--kind", "neurons")
    assert drawn.returncode == 0, drawn.stderr
    page = (shop / "network.html").read_text()
    assert "<svg" in page and 'id="groups"' in page and "written to network.html" in drawn.stdout
    scored = run_secateur(shop, "score", *MODEL, "--by", "taylor", "--only", "2", "--out", "scored")
    assert scored.returncode == 0
    assert list(sc.Scores.load(shop / "scored" / "scores.safetensors")) == ["2"]


def test_an_exported_program_where_the_class_is_not_at_hand(shop: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3, groups=6),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 4),
    ).eval()  # fmt: skip
    x = torch.randn(4, 3, 8, 8)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(exported, shop / "model.pt2")
    (shop / "pictures.py").write_text(
        "import torch\ndef data():\n"
        "    return list(torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(8))\n"
    )
    words = ("--program", "model.pt2", "--data", "pictures:data", "--keep", "macs=0.6", "--out", "small")
    done = run_secateur(shop, "prune", *words)
    assert done.returncode == 0, done.stderr
    small = torch.export.load(shop / "small" / "model.pt2").module()
    assert small(x).shape == (4, 4) and small(x[:3]).shape == (3, 4)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_groups_keep_the_sizes_that_are_given(shop: Path) -> None:
    words = "--size", "0=7", "--size", "2=50%", "--repair", "refit", "--by", "l1", "--out", "small", "--onnx", "s.onnx"
    done = run_secateur(shop, "prune", *MODEL, *words)
    assert done.returncode == 0, done.stderr
    assert "sizes that were given: 0 7 of 10, 2 4 of 8" in done.stdout
    assert "written to s.onnx" in done.stdout and "opset" in done.stdout and (shop / "s.onnx").exists()


def test_a_tradeoff_is_written_and_its_pick_loads(shop: Path) -> None:
    words = "--keep", "macs=0.8,0.5", "--out", "curve", "--repair", "refit", "--pick", "macs=0.6", "--size", "2=5"
    done = run_secateur(shop, "tradeoff", *MODEL, *words)
    assert done.returncode == 0, done.stderr
    assert "macs 0.8" in done.stdout and (shop / "curve" / "tradeoff.html").exists()
    fresh = torch.nn.Sequential(
        torch.nn.Linear(6, 10), torch.nn.ReLU(), torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    picked = sc.load(fresh, shop / "curve" / "model")
    assert sum(p.numel() for p in picked.parameters()) < 185 and picked[2].out_features == 5


METRICS = """
def hits(outputs, targets):
    return (outputs.argmax(1) == targets).double()
"""


def test_a_metric_from_a_file_and_a_part_of_the_data_kept_away(shop: Path) -> None:
    (shop / "metrics.py").write_text(METRICS)
    words = (
        "--keep",
        "macs=0.5",
        "--repair",
        "refit",
        "--metric",
        "metrics.py:hits",
        "--holdout",
        "0.25",
        "--out",
        "small",
    )
    done = run_secateur(shop, "prune", *MODEL, *words)
    assert done.returncode == 0, done.stderr
    assert "measured on 16 examples that were not fitted to, with 95 % intervals" in done.stdout
    report = json.loads((shop / "small" / "report.json").read_text())
    assert report["settings"]["metric"] == "hits" and report["pruned"]["metric"] == report["pruned"]["accuracy"]
    assert report["held_out"] and report["changes"]["metric"]["half_width"] is not None
    assert run_secateur(shop, "report", "small").stdout.strip() in done.stdout


WRONG = {
    "no such file": (("--model", "nowhere.py:make", "--data", "workshop:data"), "can't be found"),
    "no such module": (("--model", "nowhere:make", "--data", "workshop:data"), "can't be found"),
    "no such name": (("--model", "workshop:nope", "--data", "workshop:data"), "can't be found"),
    "no colon": (("--model", "workshop", "--data", "workshop:data"), "package.module:name"),
    "not callable": (("--model", "workshop:number", "--data", "workshop:data"), "is an int, not a torch.nn.Module"),
    "not a model": (("--model", "workshop:data", "--data", "workshop:data"), "is data, and no model"),
    "no model": (("--data", "workshop:data"), "give either --model"),
    "no batches": (("--model", "workshop:make", "--data", "workshop:nothing"), "gave no batches"),
    "no weights": ((*MODEL, "--weights", "none.safetensors"), "can't be read"),
    "a program that is none": (("--program", "workshop.py", "--data", "workshop:data"), "can't be read as an exported"),
    "no budget": ((*MODEL, "--keep", "macs"), "not of the form"),
    "an impossible budget": ((*MODEL, "--keep", "macs=0.001"), "smallest reachable"),
    "a size without a number": ((*MODEL, "--size", "0=many"), "--size 0=many is not of the form GROUP=NUMBER"),
    "a size of no group": ((*MODEL, "--size", "1=2"), "no group is named '1'"),
    "a file of no format": ((*MODEL, "--onnx", "small.engine"), "ends in no format"),
    "an unknown criterion": ((*MODEL, "--by", "magic"), "no criterion is named 'magic'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_exits_2_and_writes_nothing(case: str, shop: Path) -> None:
    words, message = WRONG[case]
    budget = () if "--keep" in words else ("--keep", "macs=0.5")
    done = run_secateur(shop, "prune", *words, *budget, "--out", "small")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and done.stderr.startswith("secateur: ")
    assert "Traceback" not in done.stderr
    assert not (shop / "small").exists()


def test_usage_errors_exit_2_and_help_and_version_0(shop: Path) -> None:
    assert run_secateur(shop, "prune").returncode == 2
    assert run_secateur(shop, "--help").returncode == 0
    version = run_secateur(shop, "--version")
    assert version.returncode == 0 and version.stdout.strip() == f"secateur {sc.__version__}"


def test_control_c_exits_130_and_writes_nothing(shop: Path) -> None:
    process = subprocess.Popen(
        words_of("demo", "--out", "small"),
        cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    assert process.stderr is not None
    process.stderr.readline()
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    # Python ends by the signal itself, which a shell calls 130, too, where it interrupted text that `exec` ran
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "stopped; no file was written" in errors and "Traceback" not in errors
    assert not (shop / "small").exists()
