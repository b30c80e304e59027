"""Programs in saved folders are never read as programs, whatever code they hold."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import secateur as sc
from damaged import examples, make
from poisoned import WAYS, poison, rewrite
from secateur.cli.main import app
from secateur.report.saved_report import saved_report


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name, as_program in (("program", True), ("plain", False)):
        options = {"by": "l2", "repair": None, "progress": False, "as_program": as_program}
        sc.prune(make(), examples(), {"units": 0.6}, **options).save(folder / name)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_load_never_runs_what_a_program_holds(way: str, saved: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "small", tmp_path / "it ran"
    shutil.copytree(saved / "program", folder)
    expected = sc.load(make(), folder)(examples())
    poison(folder / "model.pt2", way, mark)
    with pytest.raises(sc.SecateurError, match=r"model\.pt2 does not belong to"):
        sc.load(make(), folder)
    files = json.loads((folder / "recipe.json").read_text())["files"]
    digest = hashlib.sha256((folder / "model.pt2").read_bytes()).hexdigest()
    rewrite(folder / "recipe.json", files={**files, "model.pt2": digest})
    assert torch.equal(sc.load(make(), folder)(examples()), expected)
    assert saved_report(folder, False)
    assert not mark.exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_plain_result_that_claims_to_be_a_program_runs_nothing(way: str, saved: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "small", tmp_path / "it ran"
    shutil.copytree(saved / "plain", folder)
    shutil.copy(saved / "program" / "model.pt2", folder)
    poison(folder / "model.pt2", way, mark)
    assert sc.load(make(), folder)(examples()).shape == (16, 2)  # the recipe does not name it
    rewrite(folder / "recipe.json", program=True)
    with pytest.raises(sc.SecateurError, match="example_inputs"):
        sc.load(make(), folder)
    assert not mark.exists()


def test_a_program_that_a_person_names_is_called_code(saved: Path, tmp_path: Path) -> None:
    output = CliRunner().invoke(app, ["inspect", "--help"], env={"COLUMNS": "200"})
    assert "It is code: give only a file that you trust" in " ".join(output.stdout.split())
    command = ["inspect", "--program", str(saved / "program" / "model.pt2"), "--data", "damaged:examples"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "is code" in done.stderr and "that you trust" in done.stderr
    broken = tmp_path / "model.pt2"
    broken.write_bytes((saved / "program" / "model.pt2").read_bytes()[:-900])
    done = CliRunner().invoke(app, ["inspect", "--program", str(broken), "--data", "damaged:examples"])
    assert done.exit_code == 2 and "can't be read as an exported program" in done.stderr


@pytest.mark.parametrize("name", ["report.json", "recipe.json"])
def test_the_command_line_ends_with_2(name: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(saved / "plain", folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 2 and done.stderr.startswith("secateur: ") and name in done.stderr
    options = ["--model", "damaged:make", "--data", "damaged:examples", "--by", "shapley", "--coalitions", "8"]
    (tmp_path / "checkpoint").write_bytes(content)
    done = CliRunner().invoke(app, ["score", *options, "--checkpoint", str(tmp_path / "checkpoint"), "--out", "x"])
    assert done.exit_code == 2 and "checkpoint" in done.stderr
