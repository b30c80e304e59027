"""Pruning by matrix pivoting: a network reordered so that the largest weights lie in few dense blocks.

After Sredojevic et al. 2017 (arXiv 1712.01084), whose text was not readable: what is here is a reconstruction from its
abstract and its neighbours, as `search` says.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from secateur.entry import entry_point
from secateur.errors import BudgetError
from secateur.masking.finite_weights import finite_weight
from secateur.options import is_block_shape
from secateur.options.selections import Selection
from secateur.sparsity.pivoting.result import PivotResult
from secateur.sparsity.pivoting.rounds import PivotRounds, axes_to_pivot
from secateur.sparsity.results import RunSettings, whole_plan
from secateur.surgery.lineage import folded_copy, lineage_of, record_cut
from secateur.surgery.recipe import make_recipe
from secateur.tracing import trace
from secateur.training.session import training_session
from secateur.utils.plurals import number_of
from secateur.utils.progress import stage

PIVOT_STAGES = ("trace", "prune")


@entry_point
def pivot(
    model: nn.Module,
    data: Any,
    density: float,
    *,
    test: Any = None,
    shape: tuple[int, int] = (16, 16),
    rounds: int = 1,
    fit: Callable[[nn.Module], object] | None = None,
    tuning_steps: int = 0,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    fade: float | None = None,
    balanced: bool = False,
    skip: Selection | None = None,
    starts: int = 4,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = True,
) -> PivotResult:
    """Reorder a network's units so that its weights come into few dense blocks, and prune all that lies outside.

    Orders of units are folded into the network: all consumers read units in the order in which they are produced, so
    nothing is gathered at run time. Where inputs are no group of units (the network's own input, flattened or
    concatenated maps) and fill more than one block, the layer gets an order of its own, which costs one gather.

    Args:
        model: the trained model; it is not changed.
        data: examples, with or without labels, as `secateur.prune` takes them; a few do where nothing is trained.
        density: the fraction of each matrix to keep; of a convolution, of its kernels.
        test: other examples to measure on; by default a part of `data` is kept away, as `prune` does it.
        shape: the shape of a block (outputs, inputs).
        rounds: the density falls geometrically over these, each with a new search and with fine-tuning.
        fit: a function that fine-tunes a model in place; pruned entries are held at zero.
        tuning_steps: in place of `fit`: steps of Adam in each round, towards the model's own outputs and labels where
            there are any. 0 for none.
        learning_rate: the learning rate of these steps.
        batch_size: the number of examples in each of these steps.
        fade: below 1: before each round's cut the model is fine-tuned once more, while what lies outside of the blocks
            is multiplied by this after every step of an optimizer, and the blocks are chosen anew; .99 in our trials.
        balanced: the same number of blocks in each block row.
        skip: globs, modules or classes of modules that are not pruned; by default the last.
        starts: the number of starting points of the search.
        checkpoint: a folder to write states of the training to at intervals, and to resume from.
        seed: the seed of random starts, and of the examples drawn.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        The model with zeros (`result.model`), the one with fast kernels (`result.fast`), and the report.

    Raises:
        BudgetError: The density, the shape or the rounds are out of range.
        DataError: The examples cannot be used.
        SurgeryError: There is no layer to pivot, or the network depends on the order of its units.

    Examples:
        >>> import torch
        >>> layers = [torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Linear(32, 4))
        >>> result = pivot(model, torch.randn(2, 32), 0.25, shape=(8, 8))
        >>> [(name, int(layer.blocks.sum()), layer.gather is not None) for name, layer in result.layers.items()]
        [('0.weight', 4, True), ('2.weight', 4, False)]
    """
    _check_pivoting(model, shape, tuning_steps, fit is not None)
    options = (density, shape, rounds, fade, balanced, tuning_steps, skip)
    session = training_session(
        model, data, test, learning_rate, batch_size, seed, checkpoint, options, trains=tuning_steps > 0
    )  # fmt: skip
    work = folded_copy(model)
    with stage("trace", PIVOT_STAGES):
        network = trace(work, session.batches)
    session = session.marked_by(network)
    rounds_of_pivoting = PivotRounds(work, network, axes_to_pivot(network, skip), shape, balanced, starts, seed)
    fit = session.training_by_round(tuning_steps) if tuning_steps else fit
    with stage("prune", PIVOT_STAGES):
        matrices = rounds_of_pivoting.run(density, rounds, fit, fade)
    if lineage_of(work) is None:
        record_cut(work, work, network, make_recipe(work, network, {}, folds=False))  # nothing is cut
    result = PivotResult(
        model=work, plan=whole_plan(network, {"density": density}), layers=matrices.layers, shape=shape,
        density=density, is_locally_optimal=matrices.is_locally_optimal,
    )  # fmt: skip
    note = f"blocks of {shape[0]} x {shape[1]}, {number_of(rounds, 'round')}, {number_of(tuning_steps, 'step')} in each"
    return result.measured(session, RunSettings("pivoting", note, {"density": density}))


def _check_pivoting(model: nn.Module, shape: tuple[int, int], tuning_steps: int, has_fit: bool) -> None:
    """Check the shape of blocks, the training between rounds, and the weights.

    Raises:
        BudgetError: the shape is out of range, or there are two ways of training.
        DataError: a weight is NaN or infinite.
    """
    if not is_block_shape(shape) or len(shape) != 2:
        raise BudgetError(f"shape={shape!r}: blocks of one and more; give a pair of whole numbers, (outputs, inputs)")
    if has_fit and tuning_steps:
        raise BudgetError(f"fit= and tuning_steps={tuning_steps} are both given; give one of them")
    for name, parameter in model.named_parameters():
        finite_weight(parameter.detach(), name)
