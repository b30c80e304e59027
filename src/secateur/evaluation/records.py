"""Records of a network's measurements."""

from dataclasses import dataclass

from secateur.coupling.cost import Cost


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one batch: the median and quartiles of repeated runs, in turn with the other network."""

    batch: int
    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Metrics:
    """Measurements of one network on the examples.

    Args:
        loss: the mean loss, against the labels or the dense network's output.
        accuracy: the fraction of right top classes, where there are labels that are classes.
        agreement: the fraction of examples with the dense network's top class, where outputs are classes.
        divergence: the mean divergence from the dense network's output.
        cost: parameters, MACs, bytes.
        latency: measured.
        metric: the user's own metric, None where there is none.
        perplexity: the exponential of the mean cross entropy of a word, over all words that count, where outputs are
            scores of words and labels or next tokens are known.
    """

    loss: float
    accuracy: float | None
    agreement: float | None
    divergence: float
    cost: Cost
    latency: Latency
    metric: float | None = None
    perplexity: float | None = None
