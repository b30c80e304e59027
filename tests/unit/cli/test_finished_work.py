"""Output of a finished command: the result where its folder fails, and standard output."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expected_warnings import untrained_networks
from secateur.cli.finished_work import save_in
from secateur.cli.main import app, main
from secateur.errors import StorageError
from secateur.pruning.results import Result

pytestmark = untrained_networks

CODE = """
import torch
from torch import nn

class Größe(nn.Sequential):
    def forward(self, x):
        print("a line of the user's own code")
        return super().forward(x)

def make():
    print("made")
    return Größe(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

inputs = torch.randn(16, 4)
"""
OPTIONS = (
    "--model",
    "shop.py:make",
    "--data",
    "shop.py:inputs",
    "--by",
    "l1",
    "--repair",
    "none",
    "--keep",
    "macs=0.5",
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_the_users_code_prints_is_not_on_the_standard_output_of_json(shop: Path) -> None:
    done = CliRunner().invoke(app, ["prune", *OPTIONS, "--out", "small", "--json"])
    assert json.loads(done.stdout)["folder"] == "small"
    assert "made\n" in done.stderr and "a line of the user's own code" in done.stderr


def test_a_result_whose_folder_fails_is_written_to_a_temporary_folder(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Result.save

    def save_elsewhere(result: Result, folder: Path) -> None:
        if folder.name == "small":
            raise StorageError("small can't be written: No space left on device")
        save(result, folder)

    monkeypatch.setattr(Result, "save", save_elsewhere)
    done = CliRunner().invoke(app, ["prune", *OPTIONS, "--out", "small"])
    assert done.exit_code == 2 and "small can't be written: No space left on device" in done.stderr
    folder = Path(done.stderr.rpartition("the result was written to ")[2].strip())
    assert folder.parent == shop and (folder / "recipe.json").exists()


def test_where_no_folder_can_be_written_the_first_error_remains(shop: Path) -> None:
    def fail(folder: Path) -> None:
        raise StorageError(f"{folder} can't be written: disk full")

    with pytest.raises(StorageError, match=r"^small can't be written: disk full$"):
        save_in(Path("small"), fail)
    assert not list(shop.glob("secateur-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_one_message() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "secateur", "criteria"],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"secateur: standard output can't be written: {os.strerror(errno.ENOSPC)}; the files of the command are "
        "complete\n"
    )


def test_characters_that_the_terminal_lacks_are_written_as_escapes(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CliRunner().invoke(app, ["prune", *OPTIONS, "--out", "small"])
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    monkeypatch.setattr(sys, "argv", ["secateur", "report", "small"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and rb"Gr\xf6\xdfe" in written.getvalue()
