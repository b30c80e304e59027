"""Examples kept away from everything but the report, and examples that occur in both parts."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateur.data.batch import Batch, on_device
from secateur.errors import DataError

SHARE = 8  # one example of so many is kept away
FEWEST, MOST = 16, 1024
LARGEST_SHARE = 4  # but never more than one of so many
FEWEST_EXAMPLES = 32
RUNS = 8
FITTED = "are also among those that the network was fitted to"


@dataclass(frozen=True, eq=False)
class ReportExamples:
    """The examples of a report, beside those that the network was made with.

    Args:
        fitted: the examples for scores, plans and repairs.
        measured: the examples to measure on.
        timed: the batch to time both networks on.
        held_out: whether the measured examples were kept away from everything.
        notes: restrictions on that, in words.
    """

    fitted: list[Batch]
    measured: list[Batch]
    timed: Batch
    held_out: bool
    notes: tuple[str, ...] = ()

    def on(self, device: torch.device) -> "ReportExamples":
        """Return the same with the measured examples and the timed batch on a device."""
        measured = [on_device(batch, device) for batch in self.measured]
        return replace(self, measured=measured, timed=on_device(self.timed, device))


def split_examples(
    batches: Sequence[Batch], tests: Sequence[Batch] | None, holdout: float | None, has_scores: bool = False
) -> ReportExamples:
    """Choose the examples that a report is measured on.

    Args:
        batches: the examples of the user.
        tests: other examples to measure on, or None to keep some away.
        holdout: the fraction to keep away.
        has_scores: whether scores were computed before, on examples that are not known here.

    Raises:
        DataError: a fraction leaves no example in one of the parts.
    """
    if tests is not None:
        repeats, total = repeated_examples(batches, tests), sum(batch.size or 1 for batch in tests)
        notes = [f"{repeats} of the {total} test examples {FITTED}"]
        return ReportExamples(list(batches), list(tests), tests[0], repeats < total, tuple(notes[: min(repeats, 1)]))
    fitted, measured = split_report_examples(batches, holdout)
    if not measured:
        return ReportExamples(fitted, fitted, batches[0], False)
    repeats = repeated_examples(fitted, measured)
    total = sum(batch.size or 1 for batch in measured)
    notes = [f"{repeats} of the {total} measured examples {FITTED}"] if repeats else []
    notes += ["the scores were given, and may have been computed on the measured examples"] if has_scores else []
    return ReportExamples(fitted, measured, batches[0], True, tuple(notes))


def report_count(total: int, holdout: float | None) -> int:
    """Return the number of examples that are kept away for the report.

    Args:
        total: the number of examples.
        holdout: the fraction to keep away; None for an eighth, at least 16 and at most 1,024 examples, but never more
            than a quarter, and none of fewer than 32.
    """
    if holdout is not None:
        return round(total * holdout)
    if total < FEWEST_EXAMPLES:
        return 0
    return min(max(total // SHARE, FEWEST), MOST, total // LARGEST_SHARE)


def split_report_examples(batches: Sequence[Batch], holdout: float | None) -> tuple[list[Batch], list[Batch]]:
    """Split examples into those to work with and those that are kept away for the report.

    The latter are up to eight runs of neighbours spread over all examples: data sorted by class keep most classes in
    both parts, and few crops of one photo or frames of one clip are divided. Batches that can't be divided are kept
    away whole.

    Args:
        batches: the examples.
        holdout: the fraction to keep away, as `report_count` takes it.

    Raises:
        DataError: a fraction leaves no example in one of the parts.
    """
    sizes = [batch.size or 1 for batch in batches]
    count = report_count(sum(sizes), holdout)
    if not count and not holdout:
        return list(batches), []
    divisible = all(batch.is_divisible and batch.has_target_by_example for batch in batches)
    units = sizes if divisible else [1] * len(batches)
    wanted_count = count if divisible else round(len(batches) * count / sum(sizes))
    if holdout is None and not divisible:
        wanted_count = max(wanted_count, 1) if len(batches) >= LARGEST_SHARE else 0
    if holdout and not 0 < wanted_count < sum(units):
        kind = "examples" if divisible else "batches that can't be divided"
        raise DataError(
            f"holdout={holdout:g} of {sum(units)} {kind} leaves none in one part; give more examples, or test="
        )
    masks = spread_runs(sum(units), wanted_count).split(units)
    if not divisible:
        pairs = list(zip(batches, masks, strict=True))
        return [batch for batch, mask in pairs if not mask], [batch for batch, mask in pairs if mask]
    return _selected_examples(batches, [~mask for mask in masks]), _selected_examples(batches, masks)


def spread_runs(total: int, count: int) -> Tensor:
    """Select examples in up to eight runs of neighbours, one in the middle of each of as many equal parts, (total,)."""
    mask = torch.zeros(total, dtype=torch.bool)
    runs = min(RUNS, count)
    for run in range(runs):
        start, end = run * total // runs, (run + 1) * total // runs
        length = (run + 1) * count // runs - run * count // runs
        run_start = start + (end - start - length) // 2
        mask[run_start : run_start + length] = True
    return mask


def _selected_examples(batches: Sequence[Batch], masks: Sequence[Tensor]) -> list[Batch]:
    """Return the selected examples of each batch; batches without any are left out."""
    return [
        batch if bool(mask.all()) else batch.take(torch.nonzero(mask).flatten())
        for batch, mask in zip(batches, masks, strict=True)
        if bool(mask.any())
    ]


def repeated_examples(batches: Sequence[Batch], tests: Sequence[Batch]) -> int:
    """Return the number of test examples whose inputs are also among the other examples, bit for bit."""
    known_digests = {digest for batch in batches for digest in _input_digests(batch)}
    return sum(digest in known_digests for batch in tests for digest in _input_digests(batch))


def _input_digests(batch: Batch) -> Iterator[bytes]:
    """Yield a digest of the tensors of each example, of the whole batch where it can't be divided."""
    tensors = [tensor.detach().cpu() for tensor in batch.tensors if not tensor.is_nested and not tensor.is_sparse]
    examples = [tensors] if not batch.is_divisible else list(zip(*tensors, strict=True))
    for entries in examples:
        digest = hashlib.blake2b(digest_size=16)
        for entry in entries:
            digest.update(entry.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if entry.numel() else b"")
        yield digest.digest()
