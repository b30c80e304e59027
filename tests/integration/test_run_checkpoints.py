"""Runs that are stopped or killed and go on from their checkpoint to the same bits."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from killed import forked
from secateur.cli.app import handle_errors
from secateur.errors import CheckpointError, StorageError
from secateur.files.locks import try_lock, unlock
from secateur.pruning import run_checkpoint, stages
from secateur.recovery.repair_runner import RepairRunner

pytestmark = untrained_networks

KEEP = {"macs": 0.5}


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def data(seed: int = 1, examples: int = 40) -> torch.Tensor:
    return torch.randn(examples, 6, generator=torch.Generator().manual_seed(seed))


def prune(checkpoint: Path | None, **options: Any) -> sc.Result:
    return sc.prune(model(), data(), **{"keep": KEEP, **options}, checkpoint=checkpoint, progress=False)


def bits(result: sc.Result) -> dict[str, Any]:
    """All of a result that does not depend on a clock."""
    tensors = {**result.model.state_dict(), **{f"kept {name}": kept for name, kept in result.plan.kept.items()}}
    tensors |= {f"score {name}": scores.values for name, scores in result.scores.items()}
    settings = {name: result.report.settings[name] for name in ("by", "note", "repairs", "warnings")}
    plan = (result.plan.cost, dict(result.plan.keep), result.plan.notes, result.plan.change, result.plan.effective)
    return {"tensors": {name: tensor.tolist() for name, tensor in tensors.items()}, "settings": settings, "plan": plan}


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_checkpoint, "SECONDS", 0.0)


def killed_at_write(name: str, number: int, work: Callable[[], Any]) -> None:
    """Do something in a process that is killed just before a file of this name takes its place for this time."""

    def watched() -> None:
        remaining = number

        def count(event: str, arguments: Any) -> None:
            nonlocal remaining
            if event == "os.rename" and Path(arguments[1]).name == f"{name}.safetensors":
                remaining -= 1
                if remaining == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()

    assert forked(watched) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("options", "kills"),
    [
        ({}, [("scores-1", 1), ("plans", 3), ("repairs", 2)]),
        ({"keep": {"loss": 0.3}, "repair": "refit"}, [("plans", 6)]),
        ({"by": "shapley", "coalitions": 40, "rounds": 2, "repair": "refit"}, [("scores-2-samples", 1), ("plans", 2)]),
    ],
    ids=["a budget", "a bound on the loss", "Shapley values in two rounds"],
)
def test_a_killed_run_of_prune_goes_on_to_the_same_bits(
    options: dict[str, Any], kills: list[tuple[str, int]], tmp_path: Path
) -> None:
    for name, number in kills:
        killed_at_write(name, number, lambda: prune(tmp_path / "part", **options))
    assert bits(prune(tmp_path / "part", **options)) == bits(prune(None, **options))


def test_what_was_done_is_not_done_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bits(prune(finished))

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("done again")

    monkeypatch.setattr(stages, "score", fail)
    monkeypatch.setattr("secateur.allocation.choose_plan._search_plan", fail)
    monkeypatch.setattr(RepairRunner, "train", fail)
    monkeypatch.setattr(RepairRunner, "solve", fail)
    assert bits(prune(finished)) == expected


def compared(checkpoint: Path | None) -> Any:
    comparison = sc.compare(
        model(), data(), ("l1", "obs", "shapley"), {"macs": (0.6, 0.4)}, options={"shapley": {"coalitions": 30}},
        checkpoint=checkpoint, progress=False,
    )  # fmt: skip
    trials = [
        (trial.by, trial.keep, trial.repair, trial.macs, trial.metrics.losses.tolist()) for trial in comparison.trials
    ]
    return trials, {name: scores["0"].values.tolist() for name, scores in comparison.scores.items()}


def drawn(checkpoint: Path | None) -> Any:
    curve = sc.tradeoff(model(), data(), {"macs": (0.6, 0.4)}, checkpoint=checkpoint, progress=False)
    return [bits(point.result) for point in curve.points], [point.changes for point in curve.points]


@pytest.mark.parametrize(
    ("run", "name", "number"), [(compared, "repairs", 4), (drawn, "repairs", 3)], ids=["compare", "tradeoff"]
)
def test_killed_comparisons_and_curves_go_on_to_the_same_bits(
    run: Callable[[Path | None], Any], name: str, number: int, tmp_path: Path
) -> None:
    killed_at_write(name, number, lambda: run(tmp_path / "part"))
    assert run(tmp_path / "part") == run(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that came to its end."""
    folder = tmp_path_factory.mktemp("finished")
    prune(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"keep": {"macs": 0.4}}, r"keep was \{'macs': 0.5\}, is \{'macs': 0.4\}"),
        ({"seed": 3}, "seed was 0, is 3"),
        ({"repair": "refit"}, r"repair was \['refit', 'adapt'\], is 'refit'"),
        ({"by": sc.Taylor(order=2)}, r"by was 'obs', is Taylor\(.*order=2"),
        ({"skip": "2"}, "skip was not given, is '2'"),
        ({"data": data(2)}, "the examples are others"),
        ({"model": model(5)}, "the model or its weights are others"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(
    changes: dict[str, Any], difference: str, finished: Path
) -> None:
    settings = {"model": model(), "data": data(), "keep": KEEP, "progress": False, "checkpoint": finished}
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(CheckpointError, match=difference):
        sc.prune(**{**settings, **changes})
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_functions_do_not_share_a_checkpoint(finished: Path) -> None:
    with pytest.raises(CheckpointError, match="function was prune, is tradeoff"):
        drawn(finished)


def test_a_checkpoint_that_another_process_uses_is_refused(finished: Path) -> None:
    lock = try_lock(finished / run_checkpoint.MANIFEST)
    try:
        with pytest.raises(CheckpointError, match="another process is using"):
            prune(finished)
    finally:
        unlock(lock)


@pytest.mark.parametrize(
    "name", ["checkpoint.json", "plans.safetensors", "repairs.safetensors", "scores-1.safetensors"]
)
def test_a_damaged_checkpoint_of_a_run_is_refused_and_left(name: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    damaged = (tmp_path / name).read_bytes()[:-40]
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(StorageError):
        prune(tmp_path)
    assert (tmp_path / name).read_bytes() == damaged


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("scores")
    with pytest.raises(StorageError, match="is a file; give a folder"):
        prune(tmp_path / "part")


def test_a_stopped_run_says_how_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stopped:
        patch.setattr(stages, "run_repairs", stop)
        prune(tmp_path / "part")
    (note,) = stopped.value.__notes__
    assert note.startswith(f"{tmp_path / 'part'} holds what was done; call secateur.prune again with checkpoint=")
    monkeypatch.setattr(stages, "score", stop)  # which is not called again
    prune(tmp_path / "part")


def test_the_command_says_which_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["secateur", "prune", "--keep", "macs=0.5", "--checkpoint", "a folder"])

    def command() -> None:
        stop = KeyboardInterrupt()
        stop.add_note(f"a folder holds what was done; {run_checkpoint.going_on('prune', 'a folder')}")
        raise stop

    with pytest.raises(Exception) as exit_info:
        handle_errors(command)()
    assert exit_info.value.exit_code == 130  # type: ignore[attr-defined]
    assert capsys.readouterr().err.splitlines() == [
        "secateur: stopped; a folder holds what was done; the same command goes on from it:",
        "secateur prune --keep macs=0.5 --checkpoint 'a folder'",
    ]


def test_a_failure_of_another_process_at_the_start_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process has the lock when it is told of the failure; its next attempt opens the checkpoint."""

    def exchange(label: str, payload: Any = None) -> list[Any]:
        if label == run_checkpoint.OPENED:
            raise StorageError("the other process can't read the folder")
        return [payload]

    with monkeypatch.context() as patched:
        patched.setattr(run_checkpoint, "is_shared", lambda: True)
        patched.setattr(run_checkpoint, "check_same_run", lambda _: None)
        patched.setattr(run_checkpoint, "exchange", exchange)
        with (
            pytest.raises(StorageError, match="the other process"),
            run_checkpoint.run_checkpoint(tmp_path, "prune", model(), [], {}),
        ):
            pytest.fail("opened")
    with run_checkpoint.run_checkpoint(tmp_path, "prune", model(), [], {}) as saved:
        assert saved.folder == tmp_path
