"""`score`: the worth of each unit of a network, by any criterion."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.coupling.network import Network
from secateur.coupling.residual_blocks import without_blocks
from secateur.data.batch import on_device
from secateur.entry import entry_point_with
from secateur.errors import NameMatchError
from secateur.evaluation.losses import Loss
from secateur.importance import (
    activation,
    gradient,
    integrated_gradients,
    lean,
    leave_one_out,
    magnitude,
    obs,
    random,
    taylor2019,
)
from secateur.importance.context import CriterionContext, as_examples, network_microbatches
from secateur.importance.criterion_keywords import configured_criterion
from secateur.importance.data_checks import batches_for
from secateur.importance.input_checks import check_inputs
from secateur.importance.loss_checks import check_losses
from secateur.importance.registry import CriterionLike, RegisteredCriterion
from secateur.importance.scores import Scores
from secateur.importance.scoring_run import ScoringRun, run_criterion
from secateur.importance.shapley import owen, shapley_values
from secateur.importance.shapley.samplers.base import Sampler
from secateur.importance.shapley.stopping import Rule
from secateur.masking.imputation import consumer_moments
from secateur.masking.unit_means import consumer_means
from secateur.options import check_name
from secateur.options.selections import Selection
from secateur.options.table import check_option
from secateur.utils.progress import track

BUILT_IN = (
    activation,
    random,
    gradient,
    integrated_gradients,
    leave_one_out,
    obs,
    taylor2019,
    lean,
    magnitude,
    shapley_values,
    owen,
)


CRITERION_OPTIONS = ("aggregate", "estimator", "coalitions", "stop", "protocol", "memory", "precision")
READ_BY_CRITERIA = (*CRITERION_OPTIONS, "resume", "checkpoint")


@entry_point_with(deferred=CRITERION_OPTIONS, is_shared=True)
def score(
    network: Network,
    data: Any = None,
    by: CriterionLike = "shapley",
    *,
    loss: Loss | None = None,
    ablation: str = "mean",
    aggregate: str | float | Callable[[Tensor], Tensor] | None = None,
    estimator: str | Sampler = "auto",
    coalitions: int | None = None,
    stop: Rule | None = None,
    protocol: str | None = None,
    only: Selection | None = None,
    skip: Selection | None = None,
    seed: int = 0,
    memory: int | None = None,
    precision: str | None = None,
    resume: Scores | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = True,
) -> Scores:
    """Score every unit of a network; units with low scores are removed first.

    Args:
        network: the traced network.
        data: any iterable of batches: `(inputs, target)`, a dict of inputs (`labels` are the target), or inputs alone;
            or single examples: a `Dataset`, rows of one. Arrays and lists of numbers are as good as tensors.
            Without targets, losses are the divergence from the dense network's own output. None for criteria that
            read weights alone.
        by: a criterion: its name, its configuration, such as `sc.Shapley(sampler="svarm", coalitions=500)` or
            `sc.Taylor(order=2)`, or a function like one. `print(sc.criteria())` lists names and configurations.
        loss: a function of the output and the target (without targets: the dense output) that returns one value per
            example (examples,). By default cross entropy for class numbers, squared error for other targets.
        ablation: the replacement of an absent unit: its mean over the data ("mean"), which a cut folds into the biases
            of its consumers; its best linear prediction from the kept units ("impute"), which a repair by least squares
            approximates; or zero ("zero").
        aggregate: the statistic from examples' values to scores. This and the following six arguments are options of
            the criterion's configuration, for a criterion given by its name: `by="shapley", coalitions=500` is
            `by=sc.Shapley(coalitions=500)`.
        estimator: the sampler of `Shapley` and `Owen`, or the Hessian of `Taylor`.
        coalitions: the number of coalitions of each group.
        stop: the stopping rule of the sampling.
        protocol: the protocol of `Shapley`.
        only: the groups to score: a name of a group, a glob of names, a module or its path, a class of modules such as
            `nn.Conv2d`, or a list of these. A module selects the groups of the units that it makes.
        skip: the groups to omit, as `only` takes them.
        seed: the seed of all randomness.
        memory: the largest number of bytes of activations that are alive at once.
        precision: the precision of the runs of coalitions.
        resume: earlier scores by the same sampled criterion of the same network and examples, which are refined.
        checkpoint: a file to write the scores to every few seconds; a run that finds it continues it, and ends with
            the same bits as one that was never interrupted.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        Scores: for each group its values (units,) and their standard errors.

    Raises:
        NameMatchError: a name matches nothing.
        OptionError: an option does not apply to the criterion.
        DataError: the examples can't be used, or scores to resume are of something else.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> scores = sc.score(network, torch.randn(64, 4), by="shapley", progress=False)
        >>> scores["0"].values.shape, scores["0"].errors.shape
        (torch.Size([8]), torch.Size([8]))
    """
    keywords: dict[str, Any] = {
        "aggregate": aggregate,
        "estimator": estimator,
        "coalitions": coalitions,
        "stop": stop,
        "protocol": protocol,
        "memory": memory,
        "precision": precision,
        "resume": resume,
    }
    criterion = configured_criterion(by, keywords)
    ablation = (criterion.config and criterion.config.required_ablation) or ablation
    network = without_blocks(network)
    groups = network.select(only, skip)
    if not groups:
        raise NameMatchError(f"there is no group to score: only={only!r} and skip={skip!r} leave none of\n{network}")
    context = CriterionContext(network, groups, (), loss, {}, seed)
    with torch.random.fork_rng(devices=[]):
        context = _with_examples(context, data, criterion, ablation)
        return run_criterion(
            ScoringRun(criterion, context, ablation), resume, None if checkpoint is None else Path(checkpoint)
        )


def _with_examples(
    context: CriterionContext, data: Any, criterion: RegisteredCriterion, ablation: str
) -> CriterionContext:
    """Return the context with the examples, checked, and the replacements of absent units.

    Raises:
        DataError: the examples or the loss can't be used.
    """
    network = context.network
    batches = [] if data is None else batches_for(network, data)
    batches = [on_device(batch, network.device) for batch in as_examples(network, batches)]
    with torch.no_grad():
        outputs = check_inputs(context.forward, batches, by_example=context.loss is None)
    if criterion.uses in ("loss", "gradients"):
        check_losses(outputs, batches, context.loss, criterion.uses)
    microbatches = network_microbatches(
        network, batches, fits_memory=criterion.uses == "nothing", joins=not criterion.facts.has_minibatches
    )
    has_means = ablation != "zero" and bool(microbatches)
    means = consumer_means(network, track(microbatches, "means of units")) if has_means else {}
    has_moments = ablation == "impute" and bool(microbatches)
    moments = consumer_moments(network, track(microbatches, "moments of units")) if has_moments else {}
    return replace(context, microbatches=microbatches, means=means, moments=moments)


def check_scoring(by: CriterionLike, options: Mapping[str, Any]) -> None:
    """Check options of `score` that another function hands on.

    Raises:
        NameMatchError: there is no such criterion or option; the nearest is offered.
        OptionError: an option has a wrong type or value, or does not apply to the criterion.
    """
    annotations = inspect.get_annotations(inspect.unwrap(score))
    for name, value in options.items():
        check_name(name, READ_BY_CRITERIA, "`score` has no option")
        if name not in CRITERION_OPTIONS:
            check_option(name, value, annotations[name])
    configured_criterion(by, {name: value for name, value in options.items() if name != "checkpoint"})
