"""Going on from earlier scores, and writing them down while they are made."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.data.batch import Batch
from secateur.data.forms import all_leaves
from secateur.errors import DataError, StorageError
from secateur.importance.scores import GroupScores, Scores
from secateur.utils.distributed import broadcast_result, process_rank

EVERY = 10.0  # seconds from writing to writing


def fingerprint(network: Network, cells: Sequence[Batch], *options: Any) -> str:
    """A mark of a network's weights, its examples and whatever else scores depend on."""
    program = network.program
    return tensor_fingerprint(
        [program.state(name) for name in sorted(set(program.state_names.values()))], cells, *options
    )


def tensor_fingerprint(weights: Sequence[Tensor], cells: Sequence[Batch], *options: Any) -> str:
    """A mark of weights, examples and whatever else a result depends on."""
    found = hashlib.blake2b(repr(options).encode(), digest_size=16)
    for leaf in (*weights, *all_leaves([(cell.args, dict(cell.kwargs), cell.target) for cell in cells])):
        found.update(_bytes(leaf) if isinstance(leaf, Tensor) else repr(leaf).encode())
    return found.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous().flatten()
    return f"{tensor.dtype} {tuple(tensor.shape)}".encode() + plain.view(torch.uint8).numpy().tobytes()


def load_checkpoint(
    resume: Scores | None, checkpoint: Path | None, mark: Callable[[], str], network: Network, examples: int
) -> Scores | None:
    """The scores to go on from: those given, or those that an interrupted run wrote down.

    Args:
        resume: scores that a person gave.
        checkpoint: a file that may be there.
        mark: of all that scores depend on.
        network: whose units are scored.
        examples: how many there are.

    Raises:
        DataError: they are of another network, other examples or other options, or hold nothing to go on from.
        StorageError: the checkpoint is damaged, or does not fit the network.
    """
    given = resume is not None
    if resume is None and checkpoint is not None:
        resume = broadcast_result(lambda: Scores.load(checkpoint) if checkpoint.exists() else None)
    elif resume is not None and all(scores.samples is None for scores in resume.values()):
        raise DataError(
            f"scores by {resume.by!r} hold no blocks to go on from; resume= is for Shapley values and the like"
        )
    if resume is not None and resume.of != mark():
        raise DataError(
            "the scores to resume are of another network, other examples, or other options (loss, ablation, precision, "
            "seed); give what they were made with, or start anew"
        )
    for name, scores in () if resume is None else resume.items():
        units = network.by_name[name].size if name in network.by_name else 0
        other = None if scores.per_example is None else scores.per_example.shape[1]
        if len(scores.values) != units or other not in (None, examples):
            said = f"the scores to resume hold {name} with {len(scores.values)} units and {other} examples"
            raise (DataError if given else StorageError)(f"{said}, where there are {units} and {examples}; start anew")
    return resume


class Checkpoint:
    """Writes scores down while they are made: now and then, whole, by the first process.

    Args:
        path: the file.
        scores: makes scores of the groups known so far.
        known: groups from an earlier run.
    """

    def __init__(
        self, path: Path, scores: Callable[[Mapping[str, GroupScores]], Scores], known: Mapping[str, GroupScores]
    ) -> None:
        self.path, self.scores = path, scores
        self._groups = dict(known)
        self._latest: Callable[[], Mapping[str, GroupScores]] | None = None
        self._name = ""
        self._written = time.monotonic()

    def __call__(self, name: str, summary: Callable[[], Mapping[str, GroupScores]]) -> None:
        """The scores of a game have come further."""
        if name != self._name:
            self._settle()
        self._name, self._latest = name, summary
        if time.monotonic() - self._written >= EVERY:
            self.write()

    def write(self) -> None:
        """Write what is known now."""
        self._settle()
        if process_rank() == 0 and self._groups:
            self.scores(self._groups).save(self.path)
        self._written = time.monotonic()

    def _settle(self) -> None:
        if self._latest is not None:
            self._groups |= self._latest()
            self._latest = None
