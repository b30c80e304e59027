"""The schema of a file of scores, and the checks of its tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import torch
from torch import Tensor

from secateur.errors import StorageError
from secateur.files import Record, read_tensors
from secateur.files.records import Natural, check_stored
from secateur.files.tensors import About
from secateur.importance.estimates import SAMPLE_TENSORS, pool_samples, split_samples
from secateur.importance.scheme_names import current_name

MAX_EXAMPLES = 1 << 32
MAX_UNUSED = 1 << 24  # examples that no block used, which need memory, too
Name = Annotated[str, msgspec.Meta(max_length=1024)]


class SavedGroup2(Record, frozen=True):
    """One group's scores in a file of version 0.7: fields of `GroupScores`."""

    coalitions: Natural
    evaluations: Natural
    layout: str
    stopped: str


class SavedGroup(SavedGroup2, frozen=True):
    """One group's scores: fields of `GroupScores`, and the names of its tensors."""

    tensors: list[str]


class SavedScores2(About, frozen=True):
    """Scores in a file of version 0.7, without a digest: fields of `Scores`, and the number of examples."""

    FORMAT: ClassVar[str] = "secateur scores 2"
    HAS_DIGEST: ClassVar[bool] = False

    by: str
    seed: int
    note: str
    of: str
    groups: Mapping[Name, SavedGroup2]
    examples: Annotated[int, msgspec.Meta(ge=0, le=MAX_EXAMPLES)]


class SavedScores(SavedScores2, frozen=True):
    """Scores in a file: fields of `Scores`, the number of examples, the length of each mean, a digest of weights."""

    FORMAT: ClassVar[str] = "secateur scores/3"
    HAS_DIGEST: ClassVar[bool] = True

    groups: Mapping[Name, SavedGroup]
    means: dict[Name, Natural]
    weights: str = ""  # not in files of version 0.10


def read_scores(path: Path) -> tuple[SavedScores | SavedScores2, dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Read a file of scores: its record, the fields of each group's scores, and the means.

    Raises:
        StorageError: the file is damaged, not one of scores, or holds numbers that can't be scores.
    """
    tensors, about, _ = read_tensors(path, (SavedScores, SavedScores2))
    try:
        means = {name.removeprefix("mean/"): tensor for name, tensor in tensors.items() if name.startswith("mean/")}
        groups = {
            name: _group_fields(name, saved_group, tensors, about.examples)
            for name, saved_group in about.groups.items()
        }
        expected_names = {f"mean/{name}" for name in means}.union(*(_tensor_names(name, tensors) for name in groups))
        check_stored(
            tensors.keys() == expected_names,
            f"{', '.join(sorted(tensors.keys() ^ expected_names)[:3])} should not be there",
        )
        check_stored(all(mean.dim() == 1 and _is_finite(mean) for mean in means.values()), "a mean is NaN or infinite")
        if isinstance(about, SavedScores):
            check_stored({name: len(mean) for name, mean in means.items()} == about.means, "means are missing")
    except StorageError as failure:
        raise StorageError(f"{path} holds no scores that can be used: {failure}") from failure
    return about, groups, means


def _tensor_names(group: str, tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of a group's tensors."""
    is_sampled = f"shares/{group}" in tensors
    optional = [f"{field}/{group}" for field in ("errors_here", *(() if is_sampled else ("per_example",)))]
    required_names = [f"{field}/{group}" for field in ("values", "errors", *(SAMPLE_TENSORS if is_sampled else ()))]
    return {*required_names, *(name for name in optional if name in tensors)}


def _group_fields(group: str, saved_group: SavedGroup2, tensors: Mapping[str, Tensor], examples: int) -> dict[str, Any]:
    """Return the fields of one group's scores.

    Raises:
        StorageError: tensors are missing, or hold numbers that can't be scores.
    """
    names = _tensor_names(group, tensors)
    is_complete = (
        not isinstance(saved_group, SavedGroup) or {f"{field}/{group}" for field in saved_group.tensors} == names
    )
    check_stored(is_complete and names <= tensors.keys(), f"tensors of {group} are missing")
    values, errors = tensors[f"values/{group}"], tensors[f"errors/{group}"]
    check_stored(
        values.dim() == 1 and len(values) > 0 and _is_finite(values), f"the scores of {group} are NaN or infinite"
    )
    for error in (errors, tensors.get(f"errors_here/{group}", errors)):
        check_stored(error.shape == values.shape and _is_number(error), f"the errors of {group} do not fit its scores")
        check_stored(not bool((error < 0).any()), f"the errors of {group} are negative")
    samples, per_example = None, tensors.get(f"per_example/{group}")
    if f"shares/{group}" in tensors:
        sample_tensors = {field: tensors[f"{field}/{group}"] for field in SAMPLE_TENSORS}
        _check_samples(group, sample_tensors, len(values), examples)
        samples = split_samples(sample_tensors)
        per_example = pool_samples(samples, examples).values
    elif per_example is not None:
        fits = per_example.shape == (len(values), examples) and _is_number(per_example)
        check_stored(fits, f"the scores of {group} by example do not fit")
    errors_here = tensors.get(f"errors_here/{group}")
    fields = {"values": values, "errors": errors, "per_example": per_example, "errors_here": errors_here}
    facts = {name: getattr(saved_group, name) for name in SavedGroup2.__struct_fields__}
    return {**fields, "samples": samples, **facts, "layout": current_name(saved_group.layout)}


def _check_samples(group: str, tensors: Mapping[str, Tensor], units: int, examples: int) -> None:
    """Check the samples of a group.

    Raises:
        StorageError: they do not fit together, or hold numbers that no block gives.
    """
    counts, numbers, shares = tensors["counts"], tensors["examples"], tensors["shares"]
    are_integers = all(tensor.dtype == torch.int64 for tensor in (counts, numbers))
    check_stored(
        are_integers and counts.dim() == 2 and counts.shape[1] == 3, f"the counts of {group} have another form"
    )
    check_stored(
        bool((counts >= 0).all()) and bool((counts[:, 0] > 0).all()), f"the counts of {group} are out of range"
    )
    # sums of lengths that overflow can't be right: each is below 2**53 and there are at most as many as in the file
    check_stored(
        bool((counts < 2**53).all()) and sum(counts[:, 0].tolist()) == len(numbers), f"the blocks of {group} differ"
    )
    check_stored(numbers.dim() == 1 and len(numbers) > 0, f"the examples of {group} have another form")
    is_in_range = bool((numbers >= 0).all()) and bool((numbers < examples).all())
    check_stored(is_in_range and examples <= 2 * len(numbers) + MAX_UNUSED, f"the examples of {group} are out of range")
    blocks = len(counts)
    shapes = {"shares": (units, len(numbers)), "corrections": (blocks, units), "noises": (blocks, units)}
    for name, shape in shapes.items():
        fits = tensors[name].shape == shape and tensors[name].dtype == torch.float64
        check_stored(fits, f"the {name} of {group} do not fit its units and blocks")
    check_stored(
        _is_finite(shares) and _is_finite(tensors["corrections"]), f"the shares of {group} are NaN or infinite"
    )
    check_stored(_is_number(tensors["noises"]), f"the noises of {group} are infinite")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def _is_number(tensor: Tensor) -> bool:
    """Return whether a tensor holds floating-point numbers; NaN stands for unknown ones."""
    return tensor.is_floating_point() and not bool(torch.isinf(tensor).any())
