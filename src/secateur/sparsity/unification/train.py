"""Unification with a training loop of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from secateur.entry import entry_point
from secateur.errors import BudgetError
from secateur.options import is_real
from secateur.options.selections import Selection
from secateur.sparsity.results import RunSettings, whole_plan
from secateur.sparsity.unification.codec import halved
from secateur.sparsity.unification.result import UnifiedResult
from secateur.sparsity.unification.shapes import DEFAULT_SHAPE, Shape
from secateur.sparsity.unification.unification import Unification
from secateur.surgery.lineage import folded_copy, lineage_of, record_cut
from secateur.surgery.recipe import make_recipe
from secateur.tracing import trace
from secateur.training.loop import TrainingLoop
from secateur.training.session import training_session
from secateur.utils.plurals import number_of
from secateur.utils.progress import stage

UPDATES = 8

UNIFICATION_STAGES = ("trace", "unify", "tune")


@entry_point
def unify(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float] | None = None,
    *,
    pruned: float | None = None,
    unified: float | None = None,
    test: Any = None,
    shape: Shape | Mapping[str, Shape] = DEFAULT_SHAPE,
    soft_steps: int = 1000,
    tuning_steps: int = 500,
    rho: float = 1e-2,
    full_precision: bool = False,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    only: Selection | None = None,
    skip: Selection | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = True,
) -> UnifiedResult:
    """Train a copy of a model towards blocks of one absolute value, or of zero (`Unification`).

    It is trained by Adam towards the model's own outputs, and labels where there are any: first with a penalty that
    draws weights to their blocks, updated eight times, then with exact blocks.

    Args:
        model: the trained model; it is left as it is.
        data: examples, with or without labels, as `secateur.prune` takes them.
        keep: `{"blocks": 0.5}`, the fraction of blocks that are not pruned; or give `pruned`, which is 1 less that.
        pruned: the fraction of blocks that become zero; .5 by default.
        unified: the fraction that get one absolute value; by default all that are not pruned.
        test: other examples to measure on; by default a part of `data` is kept away, as `prune` does it.
        shape: of blocks, as `Unification` takes it.
        soft_steps: steps with the penalty.
        tuning_steps: steps with exact blocks.
        rho: of the penalty.
        full_precision: do not round weights to such as 16 bits hold.
        learning_rate: of Adam.
        batch_size: examples drawn for each step.
        only: layers, as `Unification` takes them.
        skip: layers, as `Unification` takes them.
        checkpoint: a folder to write states to now and then, and to go on from.
        seed: examples are drawn from it.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        The model with its blocks (`result.model`), the one that runs fast (`result.fast`), and the report. `save`
        writes model.blocks, too, of the compressed size.

    Raises:
        SecateurError: of the kind that `Unification` and `secateur.prune` raise.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3)))
        >>> result = unify(model, torch.randn(8, 16), {"blocks": 0.5}, soft_steps=8, tuning_steps=8, progress=False)
        >>> result.counts["1.weight"].unified, result.counts["1.weight"].pruned, list(result.left_out)
        (16, 16, ['0', '2'])
    """
    pruned = _pruned_fraction(keep, pruned)
    options = (pruned, unified, shape, soft_steps, tuning_steps, rho, only, skip)
    session = training_session(model, data, test, learning_rate, batch_size, seed, checkpoint, options)
    work = folded_copy(model)
    with stage("trace", UNIFICATION_STAGES):
        network = trace(work, session.batches)
    session = session.marked_by(network)
    loop, every = session.loop(work), max(soft_steps // UPDATES, 1)
    method = Unification(
        work, loop.optimizer, pruned, unified, shape=shape, rho=rho, every=every, only=only, skip=skip
    )  # fmt: skip
    residuals = _train(method, loop, soft_steps, tuning_steps)
    if not full_precision:
        halved(work)
    if lineage_of(work) is None:
        record_cut(work, work, network, make_recipe(work, network, {}, folds=False))  # nothing is cut
    requested_keep = {"blocks": 1 - pruned}
    result = UnifiedResult(
        model=work, plan=whole_plan(network, requested_keep), residuals=residuals, left_out=method.left_out,
        shapes={f"{layer.name}.weight": method.shapes[layer.name] for layer in method.layers},
    )  # fmt: skip
    fractions = f"{pruned:.0%} of the blocks pruned, {method.fractions[1]:.0%} unified"
    note = f"{fractions}, {number_of(soft_steps, 'step')} towards blocks, {tuning_steps:,} with them"
    return result.measured(session, RunSettings("unification", note, requested_keep))


def _train(method: Unification, loop: TrainingLoop, soft_steps: int, tuning_steps: int) -> Mapping[str, float]:
    """Train with the penalty and then with exact blocks.

    Returns:
        The residuals of the method at the end of the steps with the penalty.
    """
    with stage("unify", UNIFICATION_STAGES):
        loop.run("towards blocks", soft_steps, method)
    residuals = method.residuals
    method.harden()
    with stage("tune", UNIFICATION_STAGES):
        loop.run("blocks", tuning_steps, method)
    method.release()
    return residuals


def _pruned_fraction(keep: Mapping[str, float] | None, pruned: float | None) -> float:
    """Return the fraction of blocks to prune.

    Raises:
        BudgetError: both are given, or the budget is of another kind.
    """
    if keep is None:
        return 0.5 if pruned is None else pruned
    is_budget = isinstance(keep, Mapping) and set(keep) == {"blocks"} and is_real(keep["blocks"])
    if pruned is not None or not is_budget or not 0 <= keep["blocks"] <= 1:
        raise BudgetError(
            f"keep={keep!r}, pruned={pruned}: give {{'blocks': 0.5}}, the fraction of blocks that are not "
            "pruned, or pruned="
        )
    return 1 - keep["blocks"]
