"""Continuing earlier scores, and writing scores to a checkpoint while they are computed."""

import hashlib
import time
import zlib
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

EVERY = 10.0  # seconds between two writes
ALL_ENTRIES = "all "  # how digests of all entries begin


def fingerprint(network: Network, microbatches: Sequence[Batch], *options: Any) -> str:
    """Return a digest of a network's weights, its examples and all options that scores depend on."""
    program = network.program
    return tensor_fingerprint(
        [program.state(name) for name in sorted(set(program.state_names.values()))], microbatches, *options
    )


def tensor_fingerprint(weights: Sequence[Tensor], batches: Sequence[Batch], *options: Any) -> str:
    """Return a digest of weights, examples and all options that a result depends on."""
    digest = hashlib.blake2b(repr(options).encode(), digest_size=16)
    for leaf in (*weights, *all_leaves([(batch.args, dict(batch.kwargs), batch.target) for batch in batches])):
        digest.update(_content_of(leaf) if isinstance(leaf, Tensor) else repr(leaf).encode())
    return digest.hexdigest()


def weights_digest(network: Network) -> str:
    """Return a digest of all entries of a network's weights and buffers, at some gigabytes per second."""
    program, digest = network.program, hashlib.blake2b(digest_size=16)
    for name in sorted(set(program.state_names.values())):
        tensor = program.state(name)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {zlib.crc32(_raw_bytes(tensor))}".encode())
    return f"{ALL_ENTRIES}{digest.hexdigest()}"


def has_weights(network: Network, digest: str) -> bool:
    """Return whether a network has the weights of a digest.

    True as well for what earlier versions wrote: no digest, or one of some entries alone.
    """
    return not digest.startswith(ALL_ENTRIES) or digest == weights_digest(network)


def _content_of(tensor: Tensor) -> bytes:
    return f"{tensor.dtype} {tuple(tensor.shape)}".encode() + _raw_bytes(tensor).tobytes()


def _raw_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of the entries, without a copy where the tensor is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def load_checkpoint(
    resume: Scores | None, checkpoint: Path | None, by: str, current: Callable[[], str], network: Network, examples: int
) -> Scores | None:
    """Return the scores to continue: the given ones, or those that an interrupted run wrote.

    A file of scores by the same criterion, of the same weights and without samples has nothing to continue: they are
    computed again.

    Args:
        resume: scores that the user gave, or None.
        checkpoint: a file that may exist, or None.
        by: the criterion's name.
        current: a function that returns the fingerprint of all that scores depend on.
        network: the network whose units are scored.
        examples: the number of examples.

    Raises:
        DataError: they are of another network, other examples or other options, or hold no samples to continue.
        StorageError: the checkpoint is damaged, or does not fit the network.
    """
    is_from_user = resume is not None
    if resume is None and checkpoint is not None:
        resume = broadcast_result(lambda: Scores.load(checkpoint) if checkpoint.exists() else None)
        if resume is not None and not _has_samples(resume) and resume.by == by and has_weights(network, resume.weights):
            return None
    elif resume is not None and not _has_samples(resume):
        raise DataError(
            f"scores by {resume.by!r} hold no samples to continue; resume= is for Shapley values and the like"
        )
    if resume is not None and resume.of != current():
        raise DataError(
            "the scores to resume are of another network, other examples, or other options (loss, ablation, precision, "
            "seed); give those that they were computed with, or start anew"
        )
    for name, scores in () if resume is None else resume.items():
        units = network.by_name[name].size if name in network.by_name else 0
        other_count = None if scores.per_example is None else scores.per_example.shape[1]
        if len(scores.values) != units or other_count not in (None, examples):
            message = f"the scores to resume hold {name} with {len(scores.values)} units and {other_count} examples"
            raise (DataError if is_from_user else StorageError)(
                f"{message}, where there are {units} and {examples}; start anew"
            )
    return resume


def _has_samples(scores: Scores) -> bool:
    return any(group.samples is not None for group in scores.values())


class Checkpoint:
    """A file of the scores computed so far, written every few seconds by the first process.

    Args:
        path: the file.
        scores: a function from the scores of some groups to `Scores`.
        known: the groups of an earlier run.
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
        """Take note of a game's progress, and write the file if it is time.

        Args:
            name: the game's name.
            summary: a function that returns the scores of its groups so far.
        """
        if name != self._name:
            self._summarize()
        self._name, self._latest = name, summary
        if time.monotonic() - self._written >= EVERY:
            self.write()

    def write(self) -> None:
        """Write the scores computed so far."""
        self._summarize()
        if process_rank() == 0 and self._groups:
            self.scores(self._groups).save(self.path)
        self._written = time.monotonic()

    def _summarize(self) -> None:
        if self._latest is not None:
            self._groups |= self._latest()
            self._latest = None
