"""LEAN: kernels pruned by the longest chains of operators that they are part of (Schoonhoven et al. 2020)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from secateur.entry import entry_point
from secateur.errors import BudgetError, NameMatchError
from secateur.options import is_real
from secateur.options.selections import Selection
from secateur.sparsity.lean_result import LeanResult
from secateur.sparsity.lean_rounds import LeanRounds
from secateur.sparsity.results import RunSettings
from secateur.sparsity.selection import SELECT
from secateur.surgery.lineage import folded_copy
from secateur.tracing import trace
from secateur.training.session import training_session
from secateur.utils.plurals import number_of
from secateur.utils.progress import stage

LEAN_STAGES = ("trace", "prune")


@entry_point
def lean(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float] | float,
    *,
    test: Any = None,
    by: str = "lean",
    rounds: int = 1,
    fit: Callable[[nn.Module], object] | None = None,
    tuning_steps: int = 0,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    skip: Selection | None = None,
    variance: float = 1e-10,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool | None = True,
) -> LeanResult:
    """Prune the kernels of a network that are on no long chain of operators, and cut the channels that are then dead.

    The value of a chain is the product of the operator norms of its kernels, batch norms, and pooling, on images that
    wrap around. The longest chains are kept, one after another, until there are enough kernels; where no chain with a
    product of at least 1 remains, single kernels by their norm. The fraction kept falls geometrically over the rounds,
    each followed by fine-tuning, and norms are computed anew in each.

    Args:
        model: the trained model; it is not changed.
        data: examples, with or without labels, as `secateur.prune` takes them; a few do where nothing is trained. The
            size of their images counts for the norms.
        keep: the fraction of kernels to keep: `{"kernels": 0.05}`, or the number alone.
        test: other examples to measure on; by default a part of `data` is kept away, as `prune` does it.
        by: "lean" for chains; "norm" for single kernels by their operator norm with the batch norm behind, or "l1" by
            the sum of their absolute weights, both with one threshold for the whole network, to compare with.
        rounds: published: 15, with 3 epochs of fine-tuning after each, for 5 % kept.
        fit: a function that fine-tunes a model in place, called after each round; pruned kernels are held at zero.
        tuning_steps: in place of `fit`: steps of Adam in each round, towards the model's own outputs and labels where
            there are any. 0 for none.
        learning_rate: the learning rate of these steps.
        batch_size: the number of examples in each of these steps.
        skip: the layers that are not pruned, by globs, modules or classes; by default those that produce the network's
            output (the published networks keep their last 1 x 1 layer).
        variance: channels whose batch norm has a running variance below this are constants, and are removed. The
            authors' code has 1e-10 for its U-Net and 1e-45 for its ResNet, where only a variance of 0 is below.
        checkpoint: a folder to write states of the training to at intervals, and to resume from.
        seed: the seed of the examples drawn.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        The model with zeros (`result.model`), the counts of what was removed, and the report. Channels without kernels
        or without consumers are cut, and constants that they leave are added to the biases of their consumers. At
        padded borders this differs from the masked network, and for a transposed convolution it is the mean.

    Raises:
        BudgetError: the fraction or the number of rounds is out of range, or `fit` and `tuning_steps` are both given.
        DataError: the examples can't be used.
        NameMatchError: `by` or a glob matches nothing.
        SurgeryError: no layer is left whose kernels may go, or the output would not depend on the input any more.
        TraceError: the model can't be exported.

    Examples:
        >>> import torch
        >>> layers = [torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 2, 1))
        >>> result = lean(model, torch.randn(8, 1, 16, 16), {"kernels": 0.25})
        >>> result.kernels[0], result.report.pruned.cost.params < result.report.dense.cost.params
        (72, True)
    """
    share = _checked_share(keep, by)
    if fit is not None and tuning_steps:
        raise BudgetError(f"fit= and tuning_steps={tuning_steps} are both given; give one of them")
    options = (share, by, rounds, tuning_steps, skip, variance)
    session = training_session(
        model, data, test, learning_rate, batch_size, seed, checkpoint, options, trains=tuning_steps > 0
    )  # fmt: skip
    work = folded_copy(model)
    fractions = [share ** (number / rounds) for number in range(1, rounds + 1)]
    with stage("trace", LEAN_STAGES):
        network = trace(work, session.batches)
    session = session.marked_by(network)
    fit = session.training_by_round(tuning_steps) if tuning_steps else fit
    with stage("prune", LEAN_STAGES):
        result = LeanRounds(work, network, skip, by, variance).run(fractions, fit)
    note = f"kernels by {by}, {number_of(rounds, 'round')}, {number_of(tuning_steps, 'step')} in each"
    return result.measured(session, RunSettings("lean", note, {"kernels": share}))


def _checked_share(keep: Mapping[str, float] | float, by: str) -> float:
    """Return the fraction of kernels of a budget.

    Raises:
        BudgetError: it is of something else, or it is no fraction.
        NameMatchError: there is no such way to choose.
    """
    if isinstance(keep, Mapping) and list(keep) != ["kernels"]:
        raise BudgetError(f"keep={dict(keep)} is no budget of kernels; give {{'kernels': 0.05}}, or the number alone")
    share = keep["kernels"] if isinstance(keep, Mapping) else keep
    if not is_real(share) or not 0 < share <= 1:
        raise BudgetError(f"keep={keep!r}: give the fraction of kernels to keep, above 0 and at most 1")
    if by not in SELECT:
        raise NameMatchError(f"by={by!r} is unknown; known are {', '.join(SELECT)}")
    return share
