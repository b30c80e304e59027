"""What units are worth: one value and one standard error for each, saved and reloaded."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from secateur.errors import NameMatchError
from secateur.files import Writer, read_tensors, tensors_writer, write_whole
from secateur.tables import columns

FORMAT = "secateur scores 1"


@dataclass(frozen=True)
class GroupScores:
    """The scores of one group's units; low goes first.

    Args:
        values: (units,).
        errors: standard errors (units,); 0 where nothing was estimated.
        per_example: each example's own value (units, examples), or None where there is no such thing; NaN for
            examples that were not used.
        coalitions: how many coalitions were evaluated for it.
    """

    values: Tensor
    errors: Tensor
    per_example: Tensor | None = None
    coalitions: int = 0

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
    """

    groups: Mapping[str, GroupScores]
    by: str
    seed: int
    means: Mapping[str, Tensor]
    note: str

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
        return "\n".join([f"{self.by}: {self.note}" if self.note else self.by, *columns(rows)])

    def save(self, path: str | Path) -> None:
        """Write the scores to one safetensors file.

        Raises:
            StorageError: the file can't be written; an older one of that name is left as it was.
        """
        write_whole({Path(path): self.writer()})

    def writer(self) -> Writer:
        """Writes the scores to a file."""
        tensors = {f"mean/{key}": mean for key, mean in self.means.items()}
        for name, scores in self.groups.items():
            tensors[f"values/{name}"], tensors[f"errors/{name}"] = scores.values, scores.errors
            if scores.per_example is not None:
                tensors[f"per_example/{name}"] = scores.per_example
        about = {
            "by": self.by,
            "seed": self.seed,
            "note": self.note,
            "groups": {name: scores.coalitions for name, scores in self.groups.items()},
        }
        return tensors_writer(tensors, {"format": FORMAT, "about": json.dumps(about)})

    @staticmethod
    def load(path: str | Path) -> "Scores":
        """Read scores that `save` wrote.

        Raises:
            StorageError: the file is damaged or not one of scores.
        """
        tensors, about = read_tensors(Path(path), FORMAT)
        groups = {
            name: GroupScores(
                tensors[f"values/{name}"], tensors[f"errors/{name}"], tensors.get(f"per_example/{name}"), coalitions
            )
            for name, coalitions in about["groups"].items()
        }
        means = {key.removeprefix("mean/"): value for key, value in tensors.items() if key.startswith("mean/")}
        return Scores(groups, about["by"], about["seed"], means, about["note"])
