"""SPP with a built-in training loop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from secateur.entry import entry_point
from secateur.graph.model_copies import copy_model
from secateur.options.selections import Selection
from secateur.sparsity.results import RunSettings
from secateur.sparsity.spp.result import SPPResult
from secateur.sparsity.spp.spp import SPP
from secateur.tracing import trace
from secateur.training.session import training_session
from secateur.utils.plurals import number_of
from secateur.utils.progress import stage

SPP_STAGES = ("prune", "tune")


@entry_point
def spp(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float] | None = None,
    *,
    ratios: Mapping[str, float] | None = None,
    test: Any = None,
    groups: str = "columns",
    every: int = 5,
    tuning_steps: int = 500,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    skip: Selection | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = True,
) -> SPPResult:
    """Train a copy of a model while columns of its convolutions are pruned with probabilities (`SPP`).

    The copy is trained by Adam towards the model's own outputs, and labels where there are any, until every layer has
    reached its ratio (or the budget of MACs is met), and then with fixed masks.

    Args:
        model: the trained model; it is not changed.
        data: examples, with or without labels, as `secateur.prune` takes them.
        keep: the fraction to keep: `{"macs": 0.5}` or `{"columns": 0.5}`.
        ratios: the fraction of columns to prune, by globs of layers' names, in place of the same for all.
        test: other examples to measure on; by default a part of `data` is kept away, as `prune` does it.
        groups: "columns", or "channels": all positions of a kernel together.
        every: steps between two changes of the probabilities. A layer takes 100 to 160 changes.
        tuning_steps: steps of training with fixed masks.
        learning_rate: the learning rate of Adam.
        batch_size: the number of examples in each step.
        skip: globs, modules or classes of modules that are not pruned; by default the first.
        checkpoint: a folder to write states to at intervals, and to resume from.
        seed: the seed of masks and examples.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        The model with zeros (`result.model`), the one with fast kernels (`result.fast`), and the report.

    Raises:
        SecateurError: As `SPP` and `secateur.prune` raise it.

    Examples:
        >>> import torch
        >>> layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 2, 1))
        >>> result = spp(model, torch.randn(8, 1, 8, 8), {"columns": 0.5}, every=1, tuning_steps=5, progress=False)
        >>> result.columns, result.report.pruned.cost.params
        ({'2': (36, 18), '4': (4, 2)}, 84)
    """
    options = (keep, ratios, groups, every, tuning_steps, skip)
    session = training_session(model, data, test, learning_rate, batch_size, seed, checkpoint, options)
    work = copy_model(model, {})
    network = trace(work, session.example)
    session = session.marked_by(network)
    loop = session.loop(work)
    method = SPP(
        work, network, loop.optimizer, keep, ratios=ratios, every=every, groups=groups, skip=skip, seed=seed
    )  # fmt: skip
    with stage("prune", SPP_STAGES):
        pruning_steps = loop.until("chances", lambda: method.is_finished, method)
    with stage("tune", SPP_STAGES):
        loop.run("fixed masks", tuning_steps, method)
    steps_text = f"{number_of(pruning_steps, 'step')} until every layer had its ratio"
    note = f"{groups}, {steps_text}, {tuning_steps:,} with fixed masks"
    return method.finish().measured(session, RunSettings("spp", note, dict(keep or {"columns": _kept_share(method)})))


def _kept_share(method: SPP) -> float:
    """Return the fraction of columns that are kept, for runs in which each layer has its own ratio."""
    total = sum(len(columns.kept) for columns in method.columns)
    return sum(int(columns.kept.sum()) for columns in method.columns) / max(total, 1)
