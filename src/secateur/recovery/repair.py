"""`repair`: refit a cut model from unlabelled examples."""

from typing import Any

import torch
from torch import nn

from secateur.coupling.plan import Plan
from secateur.data.model_inputs import device_of
from secateur.entry import entry_point_with
from secateur.errors import SurgeryError
from secateur.evaluation.calibration import Calibration
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.checkpoint import tensor_fingerprint
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.data_checks import batches_for, check_model_on, check_model_values
from secateur.recovery.chain import RepairChain
from secateur.recovery.cut_tensors import tensors_by_name
from secateur.recovery.refit_memory import check_refit_memory
from secateur.recovery.repair_runner import RepairSettings
from secateur.recovery.repair_step import RepairStep
from secateur.recovery.repair_table import DEFAULT_REPAIR, OPTIONS, SOLVED, How, check_options, resolve_repairs
from secateur.surgery.cut import CutModel
from secateur.surgery.lineage import lineage_of
from secateur.surgery.recipe import recipe_of
from secateur.utils.distributed import check_same_inputs, is_shared


@entry_point_with(*OPTIONS, is_shared=True)
def repair(
    small: nn.Module,
    model: nn.Module,
    plan: Plan,
    data: Any,
    how: How = DEFAULT_REPAIR,
    *,
    seed: int = 0,
    progress: bool | None = True,
    **options: Any,
) -> nn.Module:
    """Repair a cut model, in place.

    Every step is tried on three quarters of the examples and kept if it brings the cut network nearer to the dense one
    on the others; "refit" and "adapt" are left out only if they take it farther by more than a standard error. What
    was kept is then made to fit all examples: "adapt" by a few steps more, other steps by doing them again, but for a
    function of your own, which is called once, with three quarters.

    Args:
        small: the cut model.
        model: the dense model, whose outputs are the targets.
        plan: by which it was cut.
        data: examples, with or without labels, as `score` takes them; labels are used by "tune" alone.
        how: one step or several, in order. "mean": each layer's constant makes its mean output the dense one's;
            "batchnorm": batch norms give the means and variances on these examples that the dense network's give;
            "refit": the weights of each linear layer and convolution are solved for by least squares, so that with what
            it reads now it gives what it gave in the dense network, the error of a residual stream made good;
            "adapt": each layer is solved for together with those that read it, so that its units come to say what
            these need, after a refit;
            "tune": short training towards the features that the dense network's last layer reads, or its outputs. Or a
            function of the cut model, the dense one and the examples' batches, which trains the cut model in its own
            way.
        seed: for the order of examples in training.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.
        options: for "tune": the most steps (300), the first learning_rate (1e-3), batch_size (64), temperature (that at
            which outputs are compared), and augment, a function from a batch of inputs, as `data` gives them, to others
            like them. By default images are flipped and shifted where the dense network's outputs do not depend on it
            and held-out examples gain by it; None for no changes.

    Returns:
        The cut model.

    Raises:
        NameMatchError: there is no such repair.
        DataError: the examples can't be used.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).eval()
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> plan = sc.plan(network, sc.score(network, by="l2"), keep={"macs": 0.5})
        >>> small, data = sc.cut(model, plan), torch.randn(200, 4)
        >>> before = (small(data) - model(data)).square().mean()
        >>> small = sc.repair(small, model, plan, data)
        >>> bool((small(data) - model(data)).square().mean() < before)
        True
    """
    resolve_repairs(how)
    check_options(options)
    batches = as_examples(plan.network, batches_for(plan.network, data))
    for network_module in (model, small):
        check_model_values(network_module)
        check_model_on(network_module, batches)
    microbatches = network_microbatches(plan.network, batches, device_of(small))
    calibration = Calibration(plan.network, microbatches, bake_parametrizations(model))
    cut_model = CutModel(small, plan, recipe_of(model, plan))
    for step in run_repairs(cut_model, calibration, how, RepairSettings(options, seed)):
        step.warn()
    return small


def run_repairs(
    cut_model: CutModel, calibration: Calibration, how: How, settings: RepairSettings
) -> tuple[RepairStep, ...]:
    """Repair a cut model in place.

    Args:
        cut_model: the cut model, with the plan and the recipe of the cut.
        calibration: the examples, with the dense model.
        how: the repairs.
        settings: how they run.

    Returns:
        The result of each step.
    """
    repairs, plan = resolve_repairs(how), cut_model.plan
    if is_shared():
        check_same_inputs(
            f"repair of the inputs {tensor_fingerprint(list(plan.kept.values()), calibration.microbatches)}"
        )
    if any(name in SOLVED for name, _ in repairs):
        check_refit_memory(plan.network, calibration.microbatches)
    with torch.random.fork_rng(devices=[]):
        _check_cut(cut_model)
        chain = RepairChain(cut_model, calibration, settings)
        steps = chain.judge(repairs)
        chain.finish()
    return steps


def _check_cut(cut_model: CutModel) -> None:
    """Check that a model was cut by its plan.

    Raises:
        SurgeryError: the small model was not cut by this plan.
    """
    small, recipe = cut_model.model, cut_model.recipe
    lineage = lineage_of(small)
    cut_kept = {} if lineage is None else lineage.steps[-1].recipe.kept
    other_group = next(
        (name for name, units in recipe.kept.items() if not torch.equal(units, cut_kept.get(name, units))), None
    )
    if other_group is not None:
        raise SurgeryError(
            f"this {type(small).__name__} was cut by another plan, which keeps other units of {other_group}; give the "
            "plan by which it was cut"
        )
    slices_of = {recipe.renamed(name): slices for name, slices in recipe.slices.items()}
    for name, tensor in tensors_by_name(small).items():
        slices = slices_of.get(name, {})
        if any(tensor.dim() <= axis or tensor.shape[axis] != len(stays) for axis, stays in slices.items()):
            raise SurgeryError(
                f"{name} of the cut {type(small).__name__} has shape {tuple(tensor.shape)}, which is not what this "
                "plan leaves; give the plan by which it was cut"
            )
