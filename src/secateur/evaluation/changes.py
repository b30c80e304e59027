"""Mean changes between two networks on the same examples, with intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959964


@dataclass(frozen=True)
class Change:
    """The mean change of a measure from the dense network to a small one, over the same examples.

    Args:
        mean: the mean of the differences, small minus dense.
        half_width: half the width of its 95 % interval.
    """

    mean: float
    half_width: float

    @staticmethod
    def of(differences: Tensor) -> "Change | None":
        """Return the change for the differences of examples, (examples,); None where they are NaN.

        Differences of hits, which are -1, 0 or 1, have the interval of Wilson (1927) where none of them are gains or
        none are losses, and that of Agresti and Min (2005) otherwise, so that a few examples that are all alike do not
        have an interval of no width. Others have Student's interval of the mean.
        """
        valid = differences[~differences.isnan()].double()
        if not len(valid):
            return None
        is_hits = bool(torch.isin(valid, torch.tensor([-1.0, 0.0, 1.0], dtype=valid.dtype)).all())
        return Change(float(valid.mean()), _hit_half_width(valid) if is_hits else student_half_width(valid))

    def text(self, is_fraction: bool) -> str:
        """Format the change, fractions in percentage points."""
        if is_fraction:
            return f"{100 * self.mean:+z.2f} ± {100 * self.half_width:.2f}"
        return f"{self.mean:+z.4f} ± {self.half_width:.4f}"


def student_half_width(values: Tensor) -> float:
    """Return half the width of Student's 95 % interval of the mean of values (examples,); infinite for one value.

    NaN, for examples without a value, does not count.
    """
    from scipy.special import stdtrit  # a quarter of the time that `scipy.stats` takes to be imported

    count = int((~values.isnan()).sum())
    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * standard_error(values) if count > 1 else math.inf


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values (examples,), of which NaN does not count; infinite for one."""
    valid = values[~values.isnan()]
    return float(valid.std()) / math.sqrt(len(valid)) if len(valid) > 1 else math.inf


def _hit_half_width(differences: Tensor) -> float:
    """Return the largest distance of the interval's ends from the mean, of differences of hits (examples,)."""
    gains, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if gains == 0 or losses == 0:
        return _wilson_half_width(gains + losses, len(differences))
    count = len(differences) + 2  # half an example more for each of right or wrong, before and after
    mean = float(differences.sum()) / count
    variance = (float(differences.square().sum()) + 1) / count - mean**2
    half_width = NORMAL_QUANTILE * math.sqrt(variance / count)
    return half_width + abs(mean - float(differences.mean()))


def _wilson_half_width(hits: int, count: int) -> float:
    """Return the largest distance of Wilson's interval of a proportion from the proportion."""
    square, share = NORMAL_QUANTILE**2, hits / count
    centre = (share + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half_width = NORMAL_QUANTILE * spread / (1 + square / count)
    return max(centre + half_width - share, share - centre + half_width)


Changes = Mapping[str, Change]
