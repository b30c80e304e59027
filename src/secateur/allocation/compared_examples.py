"""The number of examples on which plans and groups are compared."""

import math

from secateur.coupling.network import Network
from secateur.evaluation.outputs import is_logits, main_output
from secateur.evaluation.token_scores import SEQUENCE_DIMS, has_token_scores, recorded_output
from secateur.graph.program import Program
from secateur.graph.value_bytes import recorded_length
from secateur.masking.linear_layers import layers_of
from secateur.recovery.pruned_layer import few_rows_of

MOST_POSITIONS = 8192  # of all examples together
FEWEST_SEQUENCES = 16


def compared_examples(network: Network, limit: int) -> int:
    """Return the number of examples that suffices to compare plans.

    A language model is compared at every token of an example, and its layers are refitted with every token. 8,192
    tokens are enough, or as many as a quick refit of the widest layer reads, in 16 sequences at least.

    Args:
        network: the traced network.
        limit: the number for networks that give one row of class scores, or anything else, for an example.

    Examples:
        >>> import secateur as sc, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> compared_examples(sc.trace(model, torch.randn(2, 4)), 128)
        128
    """
    positions = scored_positions(network.program)
    if positions == 1:
        return limit
    widest = max((layer.features_of_group for layer in layers_of(network)), default=0)
    sequences = math.ceil(max(MOST_POSITIONS, few_rows_of(widest)) / positions)
    return min(limit, max(sequences, FEWEST_SEQUENCES))


def scored_positions(program: Program) -> int:
    """Return how many rows of class scores a network gives for an example: the tokens of a language model, else 1."""
    output = recorded_output(program)
    scores = main_output(output)
    is_sequence = (is_logits(output) and scores.dim() == SEQUENCE_DIMS) or has_token_scores(program)
    return recorded_length(scores.shape[1]) if is_sequence else 1
