"""Scores of units: one value and one standard error for each, saved and loaded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from secateur.errors import NameMatchError
from secateur.files import Writer, tensors_writer, write_file
from secateur.importance.estimates import Sample, freedom_of_errors, join_samples, student_quantile
from secateur.importance.saved_scores import SavedGroup, SavedScores, read_scores
from secateur.importance.score_plot import plot_scores
from secateur.importance.score_tables import estimation_lines, group_rows, unit_columns
from secateur.options.call_checks import checked_calls
from secateur.options.table import as_path
from secateur.utils.data_frame import data_frame
from secateur.utils.html_table import html_table
from secateur.utils.text_table import align_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


@checked_calls
@dataclass(frozen=True)
class GroupScores:
    """The scores of one group's units; units with low scores are removed first.

    Args:
        values: (units,).
        errors: standard errors (units,), for other examples of the same kind; 0 where nothing was estimated.
        per_example: each example's value (units, examples), or None where there is none; NaN for examples that were
            not used.
        coalitions: the number of coalitions evaluated for the group.
        evaluations: the sum of the numbers of examples that each was evaluated on; a gradient counts three.
        errors_here: standard errors for these very examples, which more coalitions reduce to zero; None: as `errors`.
        samples: the samples of each block, to continue from; None where nothing was sampled.
        layout: the sampling scheme of a block, in words.
        stopped: the rule that ended the sampling, in words.
    """

    values: Tensor
    errors: Tensor
    per_example: Tensor | None = None
    coalitions: int = 0
    evaluations: int = 0
    errors_here: Tensor | None = None
    samples: tuple[Sample, ...] | None = None
    layout: str = ""
    stopped: str = ""

    def __repr__(self) -> str:
        return f"GroupScores(units={len(self.values)}, coalitions={self.coalitions})"

    def interval(self, level: float = 0.95, here: bool = False) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds of each unit's score, (units,) each, by Student's t over blocks or examples.

        Args:
            level: the probability that such an interval holds the true score.
            here: whether the true score is that of all coalitions on these examples, or that of other examples.

        Raises:
            OptionError: the level is no probability between 0 and 1.
        """
        errors = self.errors_here if here and self.errors_here is not None else self.errors
        examples = None if self.per_example is None else self.per_example.shape[1]
        reach = student_quantile(level, freedom_of_errors(self.samples or (), examples, here)) * errors
        return self.values - reach, self.values + reach

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for a file; examples' values follow from the samples where there are any."""
        tensors = {"values": self.values, "errors": self.errors}
        if self.errors_here is not None:
            tensors["errors_here"] = self.errors_here
        if self.samples is not None:
            return tensors | join_samples(self.samples)
        return tensors if self.per_example is None else {**tensors, "per_example": self.per_example}

    @staticmethod
    def exact(values: Tensor) -> "GroupScores":
        """Return scores without errors, for criteria that estimate nothing."""
        return GroupScores(values.double(), torch.zeros(len(values), dtype=torch.float64))


@checked_calls
@dataclass(frozen=True)
class Scores(Mapping[str, GroupScores]):
    """Scores by the name of the group.

    Args:
        groups: the scores of each group.
        by: the criterion's name.
        seed: the seed of its randomness.
        means: the mean input of each consumer, where absent units are replaced by their means; else empty.
        note: the number of examples and the ablation, in words.
        of: a fingerprint of the network, the examples and the options; empty where nothing was sampled.
        weights: a digest of the network's weights; empty where it is unknown.
    """

    groups: Mapping[str, GroupScores]
    by: str
    seed: int
    means: Mapping[str, Tensor]
    note: str
    of: str = ""
    weights: str = ""

    def __getitem__(self, name: str) -> GroupScores:
        if name not in self.groups:
            raise NameMatchError(f"there are no scores of {name!r}, but of {', '.join(self.groups) or 'no group'}")
        return self.groups[name]

    def __contains__(self, name: object) -> bool:
        return name in self.groups

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __str__(self) -> str:
        return "\n".join([self._title, *align_columns(group_rows(self.groups)), *estimation_lines(self.groups)])

    def __repr__(self) -> str:
        units = sum(len(scores.values) for scores in self.groups.values())
        return f"Scores(by={self.by!r}, groups={len(self.groups)}, units={units})"

    def _repr_html_(self) -> str:
        return html_table(self._title, group_rows(self.groups))

    @property
    def _title(self) -> str:
        return f"{self.by}: {self.note}".removesuffix(": ")

    def to_dict(self) -> dict[str, Any]:
        """Return the criterion, its seed and note, and the values and errors of all units by group, as plain numbers.

        Examples:
            >>> import torch
            >>> Scores({"0": GroupScores.exact(torch.tensor([1.0, 2.0]))}, "l1", 0, {}, "").to_dict()["groups"]
            {'0': {'values': [1.0, 2.0], 'errors': [0.0, 0.0]}}
        """
        named = self.groups.items()
        groups = {name: {"values": group.values.tolist(), "errors": group.errors.tolist()} for name, group in named}
        return {"by": self.by, "seed": self.seed, "note": self.note, "groups": groups}

    def to_frame(self) -> "DataFrame":
        """Return a pandas data frame with one row for each unit: its group, its index, its score and the error.

        Raises:
            OptionError: pandas is not installed.
        """
        return data_frame(unit_columns(self.groups))

    def plot(self, ax: "Axes | None" = None, groups: str | Sequence[str] | None = None) -> "Axes":
        """Plot the scores of all groups, or of those that match globs, in ascending order with standard errors."""
        return plot_scores(self, ax, groups)

    def save(self, path: str | Path) -> None:
        """Write the scores to one safetensors file.

        Raises:
            StorageError: the file can't be written; an older one of that name is left as it was.
        """
        write_file(as_path(path, "path"), self.writer())

    def writer(self) -> Writer:
        """Return the writer of a file of the scores."""
        tensors = {f"mean/{key}": mean for key, mean in self.means.items()}
        saved_groups = {}
        for name, scores in self.groups.items():
            group_tensors = scores.tensors()
            tensors |= {f"{field}/{name}": tensor for field, tensor in group_tensors.items()}
            counts, texts = (int(scores.coalitions), int(scores.evaluations)), (scores.layout, scores.stopped)
            saved_groups[name] = SavedGroup(*counts, *texts, list(group_tensors))
        examples = next((s.per_example.shape[1] for s in self.groups.values() if s.per_example is not None), 0)
        means = {name: len(mean) for name, mean in self.means.items()}
        about = SavedScores(self.by, int(self.seed), self.note, self.of, saved_groups, examples, means, self.weights)
        return tensors_writer(tensors, about)

    @staticmethod
    def load(path: str | Path) -> "Scores":
        """Read scores that `save` wrote.

        Raises:
            StorageError: the file is damaged, not one of scores, or holds numbers that can't be scores.
        """
        about, groups, means = read_scores(as_path(path, "path"))
        scores = {name: GroupScores(**fields) for name, fields in groups.items()}
        weights = about.weights if isinstance(about, SavedScores) else ""
        return Scores(scores, about.by, about.seed, means, about.note, about.of, weights)
