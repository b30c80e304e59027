"""Outputs of networks: the tensor that they are about, and whether it holds class scores."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.errors import DataError
from secateur.options import kind_text

ROUNDING = 1e-3
FEWEST_ENTRIES = 16  # of rows that have another form than class scores by no chance
FEWEST_PROBABILITIES = 4  # the same, of rows whose sums are 1


def main_output(output: Any) -> Tensor:
    """Return the tensor that a network's output is about: itself, its `logits`, or its first floating-point tensor.

    Raises:
        DataError: there is none.
    """
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    first_tensor = next((tensor for tensor in _float_tensors(output) if tensor.dim()), None)
    if first_tensor is None:
        if output is None:
            raise DataError("the network returns None; let its forward return what it computes")
        kinds = {leaf.dtype for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.dim()}
        advice = "scores in place of class numbers" if kinds else "a tensor of numbers for each example"
        advice = "real numbers, such as output.abs()" if any(dtype.is_complex for dtype in kinds) else advice
        raise DataError(
            f"the network returns {kind_text(output)} in which there is no floating-point tensor with axes; let its "
            f"forward return {advice}"
        )
    return first_tensor


def outputs_by_example(output: Any) -> list[Tensor]:
    """Return the tensors of an output whose first axis is the examples."""
    examples = main_output(output).shape[:1]
    return [tensor for tensor in _float_tensors(output) if tensor.shape[:1] == examples]


def is_logits(output: Any) -> bool:
    """Return True for class scores: (examples, classes) with two classes or more, or anything named `logits`."""
    if isinstance(output, Tensor):
        return output.dim() == 2 and output.shape[1] > 1
    return "logits" in output if isinstance(output, Mapping) else hasattr(output, "logits")


def with_named_scores(output: Any, has_token_scores: bool) -> Any:
    """Return an output in which class scores of tokens have the name `logits`, by which they are compared as such.

    Args:
        output: the network's output.
        has_token_scores: whether it is a plain tensor of such scores, see `Batch`.
    """
    return {"logits": main_output(output)} if has_token_scores and not is_logits(output) else output


def is_distribution(output: Any) -> bool:
    """Return True for rows that are probabilities of classes: from 0 to 1, with sums of 1."""
    if not _has_many_rows(output, FEWEST_PROBABILITIES):
        return False
    return _is_between_0_and_1(output) and bool(((output.sum(1) - 1).abs() < ROUNDING).all())


def is_no_class_score(output: Any) -> bool:
    """Return True for rows that look like class scores by their shape, but are none.

    These are independent activations from 0 to 1, such as those of a sigmoid, and vectors of length 1, such as
    embeddings. A softmax of either is almost uniform, so that the divergence of softmaxes is near 0 for any outputs.
    """
    if not _has_many_rows(output) or is_distribution(output):
        return False
    return _is_between_0_and_1(output) or is_embedding(output)


def is_embedding(output: Any) -> bool:
    """Return True for rows that are vectors of length 1."""
    return _has_many_rows(output) and bool(((output.norm(dim=1) - 1).abs() < ROUNDING).all())


def _has_many_rows(output: Any, fewest: int = FEWEST_ENTRIES) -> bool:
    """Return True for a plain tensor of rows with enough entries that class scores do not have this form by chance."""
    return isinstance(output, Tensor) and is_logits(output) and output.numel() >= fewest


def _is_between_0_and_1(output: Tensor) -> bool:
    return bool(((output >= 0) & (output <= 1)).all())


def per_example(values: Tensor) -> Tensor:
    """Return the mean of each example's values. (examples, ...) -> (examples,)."""
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _float_tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
