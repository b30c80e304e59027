"""A save is all or nothing: whatever kills it, whenever; whoever else saves; whatever is in the way."""

import hashlib
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # by optimizers of torch 2.15 at their first use, which needs room for temporary files
import typer
from torch import Tensor

import secateur as sc
from damaged import examples, make
from killed import REFUSED, forked, killed_at
from secateur.cli.app import handle_errors
from secateur.data.conversion import as_batches
from secateur.errors import StorageError
from secateur.files import write_file, write_files
from secateur.files.staging import bytes_writer
from secateur.report.report import Report
from secateur.report.saved_report import saved_report
from secateur.sparsity.unification.codec import load_compressed, save_compressed
from secateur.training.loop import TrainingLoop, TrainingSettings


@pytest.fixture(scope="module")
def results() -> tuple[sc.Result, sc.Result]:
    first, second = (
        sc.prune(make(), examples(), {"units": share}, by="l2", repair=None, progress=False) for share in (0.7, 0.5)
    )
    return first, second


def output(model: Any) -> Tensor:
    with torch.no_grad():
        return model(examples())


def which(folder: Path, results: tuple[sc.Result, sc.Result]) -> int:
    """Return the number of the result whose weights, scores and report a folder holds."""
    loaded = output(sc.load(make(), folder))
    report = saved_report(folder, False)
    scores = sc.Scores.load(folder / "scores.safetensors")
    (number,) = (n for n, result in enumerate(results) if torch.equal(loaded, output(result.model)))
    assert report == str(results[number].report)
    assert (folder / "report.txt").read_text().rstrip() == report
    for name, digest in json.loads((folder / "recipe.json").read_text())["files"].items():
        if not name.endswith(".safetensors"):
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert torch.equal(scores["0"].values, results[number].scores["0"].values)
    return number


@pytest.mark.parametrize(("how", "stride"), [(signal.SIGKILL, 1), (signal.SIGTERM, 6)])
def test_a_save_that_is_killed_at_any_step_leaves_the_old_result_or_the_new_one(
    how: signal.Signals,
    stride: int,
    results: tuple[sc.Result, sc.Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Report, "to_html", lambda report: f"<p>{report}</p>")  # plots take their time
    old, new = results
    folder, seen, number = tmp_path / "small", [], 0
    old.save(tmp_path / "old")
    status = -1
    while status < 0:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "old", folder)
        status = killed_at(number, how, lambda: new.save(folder))
        assert status in (-how, 0)
        seen.append(which(folder, results))
        number += stride
    assert number > 30 and seen == sorted(seen) and set(seen) == {0, 1}


def test_leftovers_of_dead_runs_are_cleaned_by_the_next(results: tuple[sc.Result, sc.Result], tmp_path: Path) -> None:
    for number in (5, 12, 20):
        assert killed_at(number, signal.SIGKILL, lambda: results[0].save(tmp_path)) < 0
    assert list(tmp_path.glob(".*"))
    results[1].save(tmp_path)
    assert not list(tmp_path.glob(".*")) and which(tmp_path, results) == 1


def test_a_save_that_was_committed_is_completed_by_the_reader(
    results: tuple[sc.Result, sc.Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is one rename; what died while files were moved to their places is made good."""
    monkeypatch.setattr(Report, "to_html", lambda report: f"<p>{report}</p>")  # plots open files, too
    results[0].save(tmp_path)
    for number in range(40, 0, -1):
        killed_at(number, signal.SIGKILL, lambda: results[1].save(tmp_path))
        if (tmp_path / ".secateur-committed").is_dir():
            break
    assert (tmp_path / ".secateur-committed").is_dir()
    assert which(tmp_path, results) == 1
    assert not list(tmp_path.glob(".*"))


def test_of_two_that_save_at_once_one_wins_whole(results: tuple[sc.Result, sc.Result], tmp_path: Path) -> None:
    results[0].save(tmp_path)

    def often(result: sc.Result) -> None:
        for _ in range(6):
            result.save(tmp_path)

    children = []
    for result in results:
        pid = os.fork()
        if pid == 0:
            try:
                often(result)
                os._exit(0)
            finally:
                os._exit(4)
        children.append(pid)
    for _ in range(20):  # a reader between them
        loaded = output(sc.load(make(), tmp_path))
        assert any(torch.equal(loaded, output(candidate.model)) for candidate in results)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    which(tmp_path, results)
    assert not list(tmp_path.glob(".*"))


def test_sigterm_is_as_good_as_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as stop:
        handle_errors(command)()
    assert stop.value.exit_code == 143 and cleaned and signal.getsignal(signal.SIGTERM) is before
    assert "stopped" in capsys.readouterr().err


def loop_on(folder: Path) -> TrainingLoop:
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return TrainingLoop(model, make(), as_batches(examples()), optimizer, TrainingSettings(batch_size=8, folder=folder))


@pytest.mark.parametrize("limit", [0, 300])
def test_a_full_disk_is_an_error_that_keeps_the_old_files(
    limit: int, results: tuple[sc.Result, sc.Result], tmp_path: Path
) -> None:
    kinds: dict[str, Callable[[], Any]] = {
        "state": lambda: loop_on(tmp_path / "state").run("stage", 2),
        "blocks": lambda: save_compressed(make(), tmp_path / "blocks" / "m", {}),
        "scores": lambda: results[1].scores.save(tmp_path / "scores" / "s"),
        "result": lambda: results[1].save(tmp_path / "result"),
    }

    def limited(save: Callable[[], Any]) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save()

    for name, save in kinds.items():
        (tmp_path / name).mkdir()
        write_file(tmp_path / name / "old", bytes_writer(b"as it was"))
        assert forked(partial(limited, save)) == REFUSED, name
        assert [path.name for path in (tmp_path / name).iterdir()] == ["old"]


def test_pipes_devices_and_folders_are_refused_at_once(results: tuple[sc.Result, sc.Result], tmp_path: Path) -> None:
    results[0].save(tmp_path / "small")
    model = make()
    consumers: dict[str, Callable[[], Any]] = {
        "recipe.json": lambda: sc.load(model, tmp_path / "small"),
        "weights.safetensors": lambda: sc.load(model, tmp_path / "small"),
        "scores.safetensors": lambda: sc.Scores.load(tmp_path / "small" / "scores.safetensors"),
        "report.json": lambda: saved_report(tmp_path / "small", True),
        "model.blocks": lambda: load_compressed(model, tmp_path / "small" / "model.blocks"),
    }
    for name, read in consumers.items():
        path = tmp_path / "small" / name
        whole = path.read_bytes() if path.exists() else None
        for put in (os.mkfifo, lambda target: target.symlink_to("/dev/zero"), os.mkdir):
            path.unlink(missing_ok=True)
            put(path)
            with pytest.raises(StorageError, match="regular file"):
                read()
            path.rmdir() if path.is_dir() else path.unlink()
        if whole is not None:
            path.write_bytes(whole)
    assert torch.equal(model[0].weight, make()[0].weight)


def test_files_get_the_usual_permissions_and_links_to_folders_are_left_alone(
    results: tuple[sc.Result, sc.Result], tmp_path: Path
) -> None:
    mask = os.umask(0o027)
    try:
        write_files(tmp_path, {name: bytes_writer(b"x") for name in ("one", "two")})
        results[0].scores.save(tmp_path / "scores")
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "one").write_text("precious")
    (tmp_path / ".secateur-committed").symlink_to(elsewhere)  # a link is no committed save
    with pytest.raises(StorageError):
        write_files(tmp_path, {name: bytes_writer(b"y") for name in ("one", "two")})
    assert (elsewhere / "one").read_text() == "precious" and (tmp_path / "one").read_bytes() == b"x"
