"""What units are worth: one value and one standard error for each, saved and reloaded."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from secateur.errors import NameMatchError
from secateur.files import Writer, tensors_writer, write_file
from secateur.importance.estimates import MOST_LEFT_OUT, Sample, freedom_here, join_samples
from secateur.importance.saved_scores import SavedGroup, SavedScores, read_scores
from secateur.utils.text_table import align_columns


@dataclass(frozen=True)
class GroupScores:
    """The scores of one group's units; low goes first.

    Args:
        values: (units,).
        errors: standard errors (units,), for other examples of the same kind; 0 where nothing was estimated.
        per_example: each example's own value (units, examples), or None where there is no such thing; NaN for
            examples that were not used.
        coalitions: how many coalitions were evaluated for it.
        evaluations: the same, times the examples that each was evaluated on; with its gradient it counts three.
        errors_here: standard errors for these very examples, what more coalitions would take away; None: as `errors`.
        samples: what each block gave, to go on from; None where nothing was drawn.
        layout: what a block is, in words.
        stopped: the rule that ended it.
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

    def interval(self, level: float = 0.95, here: bool = False) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of each unit's score, (units,) each, by Student's t over the blocks.

        Args:
            level: how often such an interval holds the truth.
            here: the score that all coalitions would give on these examples, in place of that for other examples.
        """
        from scipy import stats

        errors = self.errors_here if here and self.errors_here is not None else self.errors
        freedom = float(max(min(len(self.samples), MOST_LEFT_OUT) - 1, 1)) if self.samples else math.inf
        if here and self.samples and self.per_example is not None:
            apart = freedom_here(self.samples, self.per_example.shape[1])
            freedom = apart if apart >= 1 else freedom

        reach = float(stats.t.ppf((1 + level) / 2, freedom)) * errors
        return self.values - reach, self.values + reach

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are written of it; examples' own values follow from the blocks where there are any."""
        own = {"values": self.values, "errors": self.errors}
        if self.errors_here is not None:
            own["errors_here"] = self.errors_here
        if self.samples is not None:
            return own | join_samples(self.samples)
        return own if self.per_example is None else {**own, "per_example": self.per_example}

    @staticmethod
    def exact(values: Tensor) -> "GroupScores":
        """Scores that nothing was estimated for."""
        return GroupScores(values.double(), torch.zeros(len(values), dtype=torch.float64))


@dataclass(frozen=True)
class Scores(Mapping[str, GroupScores]):
    """Scores by the name of the group.

    Args:
        groups: the scores of each group.
        by: the criterion.
        seed: what its randomness was drawn from.
        means: the mean input of each reader, where removed units are replaced by their means; else empty.
        note: how the scores were made, in words.
        of: a mark of the network, examples and options that they are of.
    """

    groups: Mapping[str, GroupScores]
    by: str
    seed: int
    means: Mapping[str, Tensor]
    note: str
    of: str = ""

    def __getitem__(self, name: str) -> GroupScores:
        if name not in self.groups:
            raise NameMatchError(
                f"there are no scores of {name!r}; there are of {', '.join(self.groups) or 'no group'}"
            )
        return self.groups[name]

    def __contains__(self, name: object) -> bool:
        return name in self.groups

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __str__(self) -> str:
        rows = [["group", "units", "lowest", "median", "highest", "error"]]
        for name, scores in self.groups.items():
            spread = [scores.values.min(), scores.values.median(), scores.values.max(), scores.errors.mean()]
            rows.append([name, str(len(scores.values)), *(f"{float(value):.3g}" for value in spread)])
        return "\n".join(
            [f"{self.by}: {self.note}" if self.note else self.by, *align_columns(rows), *self._estimation()]
        )

    def _estimation(self) -> list[str]:
        """How groups were estimated, and what stopped it; those of a kind in one line."""
        kinds: dict[tuple[str, str], list[str]] = {}
        for name, scores in self.groups.items():
            if scores.layout:
                kinds.setdefault((scores.layout, scores.stopped), []).append(name)
        return [
            f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {layout}"
            f"{f'; until {stopped}' if stopped else ''}"
            for (layout, stopped), names in kinds.items()
        ]

    def save(self, path: str | Path) -> None:
        """Write the scores to one safetensors file.

        Raises:
            StorageError: the file can't be written; an older one of that name is left as it was.
        """
        write_file(Path(path), self.writer())

    def writer(self) -> Writer:
        """Writes the scores to a file."""
        tensors = {f"mean/{key}": mean for key, mean in self.means.items()}
        said = {}
        for name, scores in self.groups.items():
            own = scores.tensors()
            tensors |= {f"{part}/{name}": tensor for part, tensor in own.items()}
            counts = int(scores.coalitions), int(scores.evaluations)
            said[name] = SavedGroup(*counts, scores.layout, scores.stopped, list(own))
        examples = next((s.per_example.shape[1] for s in self.groups.values() if s.per_example is not None), 0)
        means = {name: len(mean) for name, mean in self.means.items()}
        return tensors_writer(tensors, SavedScores(self.by, int(self.seed), self.note, self.of, said, examples, means))

    @staticmethod
    def load(path: str | Path) -> "Scores":
        """Read scores that `save` wrote.

        Raises:
            StorageError: the file is damaged, not one of scores, or holds numbers that can't be scores.
        """
        about, groups, means = read_scores(Path(path))
        made = {name: GroupScores(**fields) for name, fields in groups.items()}
        return Scores(made, about.by, about.seed, means, about.note, about.of)
