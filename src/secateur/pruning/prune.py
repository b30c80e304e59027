"""`prune`: trace, score, plan, cut and repair in one call, with a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from secateur.allocation.budget import parse_budget
from secateur.allocation.config import DEFAULTS, PruneConfig
from secateur.coupling.group_sizes import Sizes
from secateur.entry import entry_point_with
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import Metric
from secateur.importance.registry import CriterionLike
from secateur.importance.score import READ_BY_CRITERIA
from secateur.importance.scores import Scores
from secateur.options.selections import Selection
from secateur.pruning.request import PruneRequest
from secateur.pruning.results import Result
from secateur.pruning.run_checkpoint import run_checkpoint
from secateur.pruning.stages import PruneStages
from secateur.recovery.repair_table import How
from secateur.utils.time_budget import TimeBudget


@entry_point_with(*READ_BY_CRITERIA, is_shared=True)
def prune(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float | str] | None = None,
    by: CriterionLike = DEFAULTS.by,
    *,
    sizes: Sizes | None = None,
    scores: Scores | None = None,
    test: Any = None,
    holdout: float | None = None,
    loss: Loss | None = None,
    metric: Metric | None = None,
    ablation: str = DEFAULTS.ablation,
    allocation: str | Sequence[str] = DEFAULTS.allocation,
    rounds: int = DEFAULTS.rounds,
    round_to: int | None = DEFAULTS.round_to,
    floor: float = DEFAULTS.floor,
    target: str = DEFAULTS.target,
    repair: How | None = DEFAULTS.repair,
    tuning: Mapping[str, Any] | None = None,
    only: Selection | None = None,
    skip: Selection | None = None,
    kinds: str | Sequence[str] | None = None,
    as_program: bool = False,
    new_biases: bool = True,
    layout: str | None = DEFAULTS.layout,
    context_length: int | None = DEFAULTS.context_length,
    seconds: float | None = None,
    seed: int = DEFAULTS.seed,
    checkpoint: str | Path | None = None,
    progress: bool | None = True,
    **options: Any,
) -> Result:
    """Trace, score, plan, cut and repair a model, and measure the result.

    Args:
        model: the trained model; it is left as it is.
        data: a few hundred examples, with or without labels, as `score` takes them.
        keep: the budget: `{"macs": 0.5}`, "params", "bytes" or "units", as a fraction of the dense network or as an
            absolute number, `{"macs": "300M"}`, `{"bytes": "1MB"}`; or a time for a batch like those of `data`, on
            this machine: `{"latency": 0.5}` of the dense network's, `{"speedup": 2}`, or `{"ms": 5}`; for models that
            generate text `{"decode_latency": 0.7}` of the dense network's time for one token with a cache, or
            `{"prefill_latency": 0.7}` for a prompt, with a batch of one; or a bound, by which the smallest network is
            searched that loses no more on examples held out of `data`: `{"loss": 0.05}`, `{"accuracy": -0.01}` or
            `{"metric": -0.02}`, against the labels or, without any, the dense network's output. None where
            `sizes` says all.
        by: the criterion. "obs" is made for networks that are refitted (docs/lowdata.md); "shapley" estimates what
            units contribute to the network as it is.
        sizes: what single groups keep, as `plan` takes it: `{"layer1.*": 0.5, model.head: 24}`.
        scores: scores of this model that exist, in place of scoring by `by`.
        test: other examples to measure on. By default a part of `data` is kept away from scores, the choice of the plan
            and repair, and the report's numbers come from it.
        holdout: the fraction of `data` that is kept away without `test`. By default an eighth, at least 16 and at most
            1,024 examples but never more than a quarter; of fewer than 32 examples none, and the report then names its
            numbers in-sample. 0 uses all examples for everything.
        loss: the user's own loss, as `score` takes it.
        metric: a function of outputs and targets, for the report and for a bound on it, which gives one value per
            example, or one number for all of them, such as F1, mean intersection over union or a word error rate. It
            takes the outputs of the network as they are; without targets, those of the dense network stand in their
            place.
        ablation: as `score` takes it.
        allocation: as `plan` takes it; "auto" tries several allocations on examples held out and takes the one that
            comes nearest to the dense network.
        target: the device that the small network is for: "auto" for the one that the model is on, "cpu", "onnxruntime",
            "cuda", "tensorrt", "mps", or a processor, "avx512", "avx2", "arm". Numbers of units fill its kernels where
            that costs nothing: where the loss increases by less than time is saved. "any": any sizes. `round_to` is the
            hard form: all numbers are multiples of it. With "onnxruntime", times are measured by onnxruntime on this
            machine's processor (`pip install 'secateur[onnxruntime]'`), those of the report and those of a budget in
            time; with all others by torch, on the device that the model is on.
        rounds: how often the network is scored: each further time with some units removed.
        round_to: as `plan` takes it.
        floor: as `plan` takes it.
        repair: the repair of the cut model, as `repair` takes it; None for none.
        tuning: options of `repair`, such as `{"steps": 500}` for "tune".
        only: as `score` takes it. A block can be removed only if a module is named that it is, or lies in.
        skip: as `score` takes it. A block with a layer inside that is named is not removed.
        kinds: as `trace` takes them. By default blocks are among them where the budget is in time, or in MACs where the
            layers are mostly convolutions and plans are compared (`allocation="auto"`, a repair that refits).
        as_program: as `trace` takes it.
        new_biases: as `trace` takes it.
        layout: "config" for a model of the transformers library: cuts keep to what its configuration can say (one
            `intermediate_size`, one number of heads, a hidden size, fewer layers), so that all layers lose as many
            units, and no layer gets a new bias. The small model's `config` says its shape, and its own
            `save_pretrained` writes what `from_pretrained` loads. None for any sizes.
        context_length: the number of tokens in the cache, or of the prompt, that budgets in `decode_latency` and
            `prefill_latency` are measured with; by default that of the first row of `data`.
        seconds: about how long all of it may take. What can be done without is left out in time, the measuring of
            curves first, then simulated plans, then "adapt" for layers far behind, then most runs that measure times; a
            warning and the report list the steps. Tracing, scoring, the cut and one refit are always done. By default
            as long as it takes.
        seed: for all that is random.
        checkpoint: a folder for scores, plans that were tried and repairs. A run that was stopped or killed goes on
            from it to the same bits; a checkpoint of other settings, examples or weights is refused.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.
        **options: further options of the criterion, as `score` takes them.

    Returns:
        The small model (`result.model`), the plan, the scores and the report.

    Raises:
        SecateurError: of the kind that `trace`, `score`, `plan` and `cut` raise.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> result = sc.prune(model, torch.randn(64, 4), keep={"macs": 0.5}, progress=False)
        >>> result.model[0], result.plan.cost.params
        (Linear(in_features=4, out_features=4, bias=True), 30)
    """
    config = PruneConfig(
        by=by, ablation=ablation, allocation=allocation, round_to=round_to, floor=floor, sizes=sizes, target=target,
        repair=repair, rounds=rounds, seed=seed, loss=loss, metric=metric, holdout=holdout, time=TimeBudget(seconds),
        layout=layout, context_length=context_length,
    )  # fmt: skip
    request = PruneRequest(
        model=model, data=data, test=test, keep=parse_budget(keep, sizes), config=config, scores=scores,
        tuning=tuning or {}, only=only, skip=skip, kinds=kinds, as_program=as_program, new_biases=new_biases,
        options=options,
    )  # fmt: skip
    examples = request.checked_examples()
    with run_checkpoint(checkpoint, "prune", model, examples.data, request.settings) as checkpoint_state:
        return PruneStages(request, examples, checkpoint_state).run()
