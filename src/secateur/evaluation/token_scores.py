"""Networks whose output is a plain tensor of class scores for each token that they read, as language models give.

Models of the transformers library name such a tensor `logits`. In a plain tensor (examples, positions, features) the
features are class scores where a linear layer makes as many of them as there are rows in the embedding of the tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from secateur.coupling.rules.registry import rule_of
from secateur.evaluation.outputs import is_logits, main_output
from secateur.graph.functionalize import is_alias
from secateur.graph.operators import arguments, operator_name, recorded_shape
from secateur.graph.program import Program

SEQUENCE_DIMS = 3  # (examples, positions, classes)


def has_token_scores(program: Program) -> bool:
    """Return whether the output is a plain tensor, or its first one, of class scores of each token.

    False where further tensors are such scores as well, as of several heads: all of them are the result.

    Args:
        program: the network's program.
    """
    if is_logits(recorded_output(program)) or not scores_words(program):
        return False
    recorded_values = {node: node.meta.get("val") for node in program.output_nodes}
    return (
        sum(isinstance(value, Tensor) and _are_word_scores(program, value) for value in recorded_values.values()) == 1
    )


def scores_words(program: Program) -> bool:
    """Return whether the output, plain or named `logits`, has scores of all words of a vocabulary at each position.

    Args:
        program: the network's program.
    """
    return _are_word_scores(program, main_output(recorded_output(program)))


def _are_word_scores(program: Program, scores: Tensor) -> bool:
    """Return whether a recorded tensor of the output is a product with as many features as a vocabulary has words."""
    classes = scores.shape[-1] if scores.dim() == SEQUENCE_DIMS else None
    if not isinstance(classes, int):  # a length that varies from batch to batch
        return False
    makers = [node for node in program.output_nodes if node.meta.get("val") is scores]
    return any(map(_is_of_product, makers)) and classes in set(_vocabularies(program))


def recorded_output(program: Program) -> Any:
    """Return the output, of tensors without values, as the export recorded it."""
    return program.finish({node: node.meta.get("val") for node in program.output_nodes})


def _is_of_product(node: Any) -> bool:
    """Return whether a value is a product, but for biases, scales, soft caps and a choice of positions."""
    while isinstance(node, Node) and node.op == "call_function":
        if rule_of(node).layer is not None or operator_name(node) == "matmul":
            return True
        if not (_keeps_order(node) or operator_name(node) == "index"):
            return False
        node = node.args[0] if node.args else None
    return False


def _vocabularies(program: Program) -> Iterator[Any]:
    """Yield the numbers of rows of the embeddings that read an input."""
    for node in program.nodes:
        if node.op == "call_function" and operator_name(node) == "embedding":
            by_name = arguments(node)
            if _is_input(program, by_name["indices"]):
                yield recorded_shape(by_name["weight"])[0]


def _is_input(program: Program, node: Any) -> bool:
    while isinstance(node, Node) and node.op == "call_function" and _keeps_order(node):
        node = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    return node in program.inputs and isinstance(node.meta.get("val"), Tensor)


def _keeps_order(node: Node) -> bool:
    """Return whether an operator is elementwise, or returns a view or a copy of its first argument."""
    return torch.Tag.pointwise in getattr(node.target, "tags", ()) or is_alias(node) or rule_of(node).copies
