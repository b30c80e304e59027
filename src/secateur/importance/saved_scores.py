"""Scores in a file: the schema, and what must hold of the tensors before anything is made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import torch
from torch import Tensor

from secateur.errors import StorageError
from secateur.files import Record, read_tensors
from secateur.files.records import Natural
from secateur.files.tensors import About
from secateur.importance.estimates import PARTS, pool_samples, split_samples

MOST_EXAMPLES = 1 << 32
MOST_UNUSED = 1 << 24  # examples that no block used: memory is taken for them, too
Name = Annotated[str, msgspec.Meta(max_length=1024)]


class SavedGroup2(Record, frozen=True):
    """What version 0.7 said of one group's scores; the fields of `GroupScores` of these names."""

    coalitions: Natural
    evaluations: Natural
    layout: str
    stopped: str


class SavedGroup(SavedGroup2, frozen=True):
    """The same, and the names of its tensors."""

    tensors: list[str]


class SavedScores2(About, frozen=True):
    """What version 0.7 said of scores, without a digest.

    The fields of `Scores` of these names, and the number of examples.
    """

    FORMAT: ClassVar[str] = "secateur scores 2"
    HAS_DIGEST: ClassVar[bool] = False

    by: str
    seed: int
    note: str
    of: str
    groups: dict[Name, SavedGroup2]
    examples: Annotated[int, msgspec.Meta(ge=0, le=MOST_EXAMPLES)]


class SavedScores(About, frozen=True):
    """What is said of scores: the same, and the length of each mean."""

    FORMAT: ClassVar[str] = "secateur scores/3"

    by: str
    seed: int
    note: str
    of: str
    groups: dict[Name, SavedGroup]
    examples: Annotated[int, msgspec.Meta(ge=0, le=MOST_EXAMPLES)]
    means: dict[Name, Natural]


def read_scores(path: Path) -> tuple[SavedScores | SavedScores2, dict[str, dict[str, Any]], dict[str, Tensor]]:
    """What a file of scores holds: what is said of them, the fields of each group's scores, and the means.

    Raises:
        StorageError: the file is damaged, not one of scores, or holds numbers that can't be scores.
    """
    tensors, about, _ = read_tensors(path, (SavedScores, SavedScores2))
    try:
        means = {name.removeprefix("mean/"): tensor for name, tensor in tensors.items() if name.startswith("mean/")}
        groups = {name: _group(name, said, tensors, about.examples) for name, said in about.groups.items()}
        expected = {f"mean/{name}" for name in means}.union(*(_names(name, tensors) for name in groups))
        _need(tensors.keys() == expected, f"{', '.join(sorted(tensors.keys() ^ expected)[:3])} should not be there")
        _need(all(mean.dim() == 1 and _is_finite(mean) for mean in means.values()), "a mean is NaN or infinite")
        if isinstance(about, SavedScores):
            _need({name: len(mean) for name, mean in means.items()} == about.means, "means are missing")
    except StorageError as failure:
        raise StorageError(f"{path} holds no scores that can be used: {failure}") from failure
    return about, groups, means


def _names(group: str, tensors: Mapping[str, Tensor]) -> set[str]:
    """The tensors of a group's scores."""
    drawn = f"shares/{group}" in tensors
    optional = [f"{part}/{group}" for part in ("errors_here", *(() if drawn else ("per_example",)))]
    needed = [f"{part}/{group}" for part in ("values", "errors", *(PARTS if drawn else ()))]
    return {*needed, *(name for name in optional if name in tensors)}


def _group(group: str, said: SavedGroup2, tensors: Mapping[str, Tensor], examples: int) -> dict[str, Any]:
    """The fields of one group's scores."""
    names = _names(group, tensors)
    whole = not isinstance(said, SavedGroup) or {f"{part}/{group}" for part in said.tensors} == names
    _need(whole and names <= tensors.keys(), f"tensors of {group} are missing")
    values, errors = tensors[f"values/{group}"], tensors[f"errors/{group}"]
    _need(values.dim() == 1 and len(values) > 0 and _is_finite(values), f"the scores of {group} are NaN or infinite")
    for error in (errors, tensors.get(f"errors_here/{group}", errors)):
        _need(error.shape == values.shape and _is_number(error), f"the errors of {group} do not fit its scores")
        _need(not bool((error < 0).any()), f"the errors of {group} are negative")
    samples, per_example = None, tensors.get(f"per_example/{group}")
    if f"shares/{group}" in tensors:
        parts = {part: tensors[f"{part}/{group}"] for part in PARTS}
        _check_samples(group, parts, len(values), examples)
        samples = split_samples(parts)
        per_example = pool_samples(samples, examples).values
    elif per_example is not None:
        fits = per_example.shape == (len(values), examples) and _is_number(per_example)
        _need(fits, f"the scores of {group} by example do not fit")
    errors_here = tensors.get(f"errors_here/{group}")
    made = {"values": values, "errors": errors, "per_example": per_example, "errors_here": errors_here}
    return {**made, "samples": samples, **{name: getattr(said, name) for name in SavedGroup2.__struct_fields__}}


def _check_samples(group: str, parts: Mapping[str, Tensor], units: int, examples: int) -> None:
    """
    Raises:
        StorageError: the blocks of a group do not fit together, or hold numbers that no block gives.
    """
    counts, numbers, shares = parts["counts"], parts["examples"], parts["shares"]
    whole = all(tensor.dtype == torch.int64 for tensor in (counts, numbers))
    _need(whole and counts.dim() == 2 and counts.shape[1] == 3, f"the counts of {group} have another form")
    _need(bool((counts >= 0).all()) and bool((counts[:, 0] > 0).all()), f"the counts of {group} are out of range")
    # sums of lengths that overflow can't be right: each is below 2**53 and there are at most as many as in the file
    _need(bool((counts < 2**53).all()) and sum(counts[:, 0].tolist()) == len(numbers), f"the blocks of {group} differ")
    _need(numbers.dim() == 1 and len(numbers) > 0, f"the examples of {group} have another form")
    within = bool((numbers >= 0).all()) and bool((numbers < examples).all())
    _need(within and examples <= 2 * len(numbers) + MOST_UNUSED, f"the examples of {group} are out of range")
    blocks = len(counts)
    shapes = {"shares": (units, len(numbers)), "corrections": (blocks, units), "noises": (blocks, units)}
    for part, shape in shapes.items():
        fits = parts[part].shape == shape and parts[part].dtype == torch.float64
        _need(fits, f"the {part} of {group} do not fit its units and blocks")
    _need(_is_finite(shares) and _is_finite(parts["corrections"]), f"the shares of {group} are NaN or infinite")
    _need(_is_number(parts["noises"]), f"the noises of {group} are infinite")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def _is_number(tensor: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers; NaN stands for what is not known."""
    return tensor.is_floating_point() and not bool(torch.isinf(tensor).any())


def _need(holds: bool, reason: str) -> None:
    """
    Raises:
        StorageError: it does not hold.
    """
    if not holds:
        raise StorageError(reason)
