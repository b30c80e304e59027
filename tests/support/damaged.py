"""Files of every kind that Secateur reads, and the outcome of reading them damaged."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc
from crafted_files import Contents, by_chance, crafted_blocks, crafted_records, crafted_tensors
from secateur.data.conversion import as_batches
from secateur.errors import DataError, StorageError
from secateur.report.saved_report import saved_report
from secateur.sparsity import load_fast
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.result import load_pivoted
from secateur.sparsity.unification.codec import load_compressed, save_compressed
from secateur.training.loop import TrainingLoop, TrainingSettings


@dataclass(frozen=True)
class Subject:
    """A file of one kind, and what is made of it.

    Args:
        kind: of file.
        path: the file.
        use: gives what reads the file and returns what comes of it, and the model that it changes.
        crafted: functions that write further contents with a digest that is right, with names.
    """

    kind: str
    path: Path
    use: Callable[[], tuple[Callable[[], Any], nn.Module | None]]
    crafted: Callable[[bytes], Contents]

    def variants(self, chance: int, crafted: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
        """So many contents damaged by chance, and at most so many crafted ones."""
        draws = random.Random(f"{self.kind} {seed}")
        whole = self.path.read_bytes()
        for number in range(chance):
            yield f"chance {number}", by_chance(whole, draws)
        contents = list(self.crafted(whole))
        for name, write in draws.sample(contents, min(crafted, len(contents))):
            yield name, write()


def make() -> nn.Module:
    """A tiny network, always the same."""
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    for parameter in layers.parameters():
        parameter.data.normal_(generator=generator)
    return layers.eval()


def examples() -> Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def subjects(folder: Path) -> list[Subject]:
    """A file of every kind, written to a folder."""
    dense, x = make(), examples()
    network = sc.trace(dense, x[:2])
    subjects_of_results = _results(folder, x)

    sc.score(network, x, coalitions=12, progress=False, checkpoint=folder / "checkpoint").save(folder / "scores")

    def resumed() -> Any:
        return _plain(sc.score(network, x, coalitions=12, progress=False, checkpoint=folder / "checkpoint"))

    subjects_of_results.append(
        Subject("scores", folder / "scores", lambda: (_scores_in(folder / "scores"), None), crafted_tensors)
    )
    subjects_of_results.append(Subject("checkpoint", folder / "checkpoint", lambda: (resumed, None), crafted_tensors))
    save_compressed(dense, folder / "blocks", {"2.weight": (1, 2)})

    def compressed() -> tuple[Callable[[], Any], nn.Module]:
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
        return lambda: _state(load_compressed(model, folder / "blocks")), model

    subjects_of_results.append(Subject("blocks", folder / "blocks", compressed, crafted_blocks))

    def trained(steps: int = 3) -> tuple[Callable[[], Any], nn.Module]:
        model = make()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        loop = TrainingLoop(
            model, dense, as_batches(x), optimizer, TrainingSettings(batch_size=8, folder=folder / "states")
        )
        return lambda: (loop.run("stage", steps), _state(model))[1], model

    (folder / "states").mkdir()
    trained(2)[0]()
    (state,) = (folder / "states").iterdir()
    subjects_of_results.append(
        Subject("training", state, trained, crafted_tensors if state.suffix == ".safetensors" else lambda _: iter(()))
    )
    return subjects_of_results


def _results(folder: Path, x: Tensor) -> list[Subject]:
    """Saved results: a model, a program, and blocks by pivoting."""
    for name, as_program in (("plain", False), ("program", True)):
        result = sc.prune(make(), x, {"units": 0.6}, by="l2", repair=None, progress=False, as_program=as_program)
        result.save(folder / name)
    (folder / "plain" / "report.txt").write_text(f"{result.report}\n")
    pivot(make(), x[:2], 0.5, shape=(2, 2)).save(folder / "pivoted")

    def loaded(name: str) -> Callable[[], tuple[Callable[[], Any], nn.Module]]:
        def use() -> tuple[Callable[[], Any], nn.Module]:
            model = make()
            return lambda: _state(sc.load(model, folder / name)), model

        return use

    def of_blocks() -> tuple[Callable[[], Any], nn.Module]:
        model = make()

        def read() -> Any:
            pivoted = load_pivoted(model, folder / "pivoted", x[:2])
            layers = {name: (layer.blocks, layer.gather, layer.retained) for name, layer in pivoted.layers.items()}
            return _state(pivoted.model), layers, pivoted.shape, pivoted.density

        return read, model

    def of_kernels() -> tuple[Callable[[], Any], nn.Module]:
        model = make()
        return lambda: _state(load_fast(model, folder / "pivoted")), model

    report = folder / "plain"
    return [
        Subject("recipe", folder / "plain" / "recipe.json", loaded("plain"), crafted_records),
        Subject("weights", folder / "plain" / "weights.safetensors", loaded("plain"), crafted_tensors),
        Subject("program", folder / "program" / "recipe.json", loaded("program"), crafted_records),
        Subject("pivot", folder / "pivoted" / "pivot.json", of_blocks, crafted_records),
        Subject("kernels", folder / "pivoted" / "kernels.json", of_kernels, crafted_records),
        Subject("report", report / "report.json", lambda: (lambda: saved_report(report, False), None), crafted_records),
    ]


def _scores_in(path: Path) -> Callable[[], Any]:
    return lambda: _plain(sc.Scores.load(path))


def _state(model: nn.Module) -> Any:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, repr(model)


def _plain(scores: sc.Scores) -> Any:
    return {name: (group.values, group.errors, group.per_example) for name, group in scores.items()}, dict(scores.means)


def alike(one: Any, other: Any) -> bool:
    """Return True if two results are the same, bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        is_like = one.shape == other.shape and one.dtype == other.dtype
        return is_like and torch.equal(one.nan_to_num(9e9), other.nan_to_num(9e9))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def snapshot(model: nn.Module) -> Any:
    flags = [(module.training, sorted(vars(module)), type(module)) for module in model.modules()]
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, repr(model), flags


def outcome(subject: Subject, content: bytes, expected: Any) -> str:
    """same, refused, or what is wrong."""
    subject.path.write_bytes(content)
    use, model = subject.use()
    before, random_state = None if model is None else snapshot(model), torch.random.get_rng_state()
    try:
        result = "same" if alike(use(), expected) else "silently another"
    except (StorageError, DataError):  # of data, where a checkpoint is one of other scores
        result = "refused" if model is None or alike(before, snapshot(model)) else "refused, and the model is changed"
    except Exception as failure:  # noqa: BLE001 (it is what is asked about)
        changed = model is not None and not _is_as(before, model)
        result = f"raw, and the model is changed: {failure}" if changed else f"raw {type(failure).__name__}: {failure}"
    return result if torch.equal(random_state, torch.random.get_rng_state()) else f"{result}, random state changed"


def _is_as(before: Any, model: nn.Module) -> bool:
    try:
        return alike(before, snapshot(model))
    except Exception:  # noqa: BLE001 (a module that is half changed may not even be shown)
        return False
