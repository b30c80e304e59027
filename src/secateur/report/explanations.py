"""Explanations of the terms on pages, for readers who know PyTorch and nothing of Secateur."""

from collections.abc import Iterable

from secateur.importance.registry import criteria

TERMS = {
    "loss": "The mean loss over the examples: against the labels where there are any, else against the outputs of the "
    "dense network.",
    "accuracy": "The fraction of examples, or of their pixels or tokens, whose top class is the label.",
    "agreement": "The fraction of these for which both networks have the same top class. It needs no labels.",
    "divergence": "The mean distance of the pruned network's outputs from the dense network's: the Kullback-Leibler "
    "divergence of the class probabilities, in nats, or the squared error relative to the mean square of the outputs. "
    "0 means equal outputs.",
    "±": "Half the width of the 95 % interval of the change, over the examples. A smaller change may be chance.",
    "in-sample": "Measured on examples that scores or repairs used, so the numbers are too good. The argument test "
    "takes other examples.",
    "MACs": "Multiply-accumulate operations of one example.",
    "MACs in steps": "The same with channels rounded up to the number that the device's kernels compute at once.",
    "ms": "The median time of one batch, in the report with its quartiles. Both networks ran in turn on this machine.",
}


def terms_in(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Return the terms that occur in labels, with their explanations.

    Examples:
        >>> [term for term, _ in terms_in(["agreement with dense", "ms for a batch of 8"])]
        ['agreement', 'ms']
    """
    text = "\n".join(labels)
    return [(term, explanation) for term, explanation in TERMS.items() if term in text]


def criterion_explanation(by: str) -> str:
    """Return one sentence on the scores of a criterion; empty for one that is not registered.

    Args:
        by: its name, which options in parentheses may follow.

    Examples:
        >>> criterion_explanation("l1")
        'Sum of the absolute incoming weights.'
    """
    known_criteria, name = criteria(), by.partition("(")[0]
    return known_criteria[name].summary if name in known_criteria else ""
