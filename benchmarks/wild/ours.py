"""The examination of a definition by Secateur: trace, cut to three quarters by random scores, verify, load, export."""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils import _pytree as pytree

import secateur as sc
from secateur.errors import SurgeryError
from secateur.masking.ablation import masked_draws, run_masked
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.verify import output_difference
from wild.definitions import SEED, Definition, build_definition
from wild.exports import example_batch, export_seconds, export_times
from wild.unchanged import Snapshot

Row = dict[str, Any]
KEEP = 0.75
ENOUGH = 0.9


def warm_up() -> None:
    """Trace a small network: the first export of a process loads much of torch."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    sc.trace(model, torch.randn(2, 3, 8, 8))


def examine_by_secateur(definition: Definition) -> Row:
    """Return the row of a definition; "failed" has the stage at which an error was raised."""
    row: Row = {"stage": "make"}
    try:
        row |= export_times(definition)
        model, example = build_definition(definition)
        before = Snapshot(model, example)
        try:
            plan, small = _cut(row, model, example)
        finally:
            row["changed"] = before.changes(model, example)
        row["stage"] = "verify"
        row["difference"] = _difference(small, plan, definition)
        row["stage"] = "load"
        row["loaded"] = _is_restored(small, definition)
        row["stage"] = "export of the cut"
        if "export_s" in row:
            export_seconds(small, example, cache_off="cache_off" in row)
    except Exception as failure:  # noqa: BLE001 (a benchmark reports whatever happens)
        raw = row["stage"] in OUR_STAGES and not isinstance(failure, sc.SecateurError)
        row |= {"failed": row["stage"], "raw": raw, "error": _error_text(failure)}
    return row


OUTPUT = "is the network's output"
OUR_STAGES = ("trace", "cut", "verify", "load")


def _error_text(failure: Exception) -> str:
    """Return an error in words, without the folders of the machine."""
    return re.sub(r'[^\s"]*/site-packages/', "", f"{type(failure).__name__}: {failure}")[:600]


def _cut(row: Row, model: nn.Module, example: Any) -> tuple[sc.Plan, nn.Module]:
    """Trace, score, plan and cut, and write the results of each step into the row.

    Raises:
        SecateurError: a step refuses; "stage" in the row says which.
    """
    row["stage"] = "trace"
    start = time.process_time()
    with count_calls(TrialCutter, "run") as trials, count_calls(TrialCutter, "output") as joint_trials:
        network = sc.trace(model, example)
    row |= {"trace_s": time.process_time() - start, "trials": trials[0] + joint_trials[0]}
    row |= {"groups": len(network.groups), "units": network.units, **cuttable_share(model, network)}
    row["frozen"] = [[f.name, f.units, f.operator, f.module, f.reason[:300]] for f in network.frozen]
    row["frozen_units"] = sum(f.units for f in network.frozen if OUTPUT not in f.reason)
    if row["share"] < ENOUGH:
        program = sc.trace(model, example, as_program=True)
        row["program_share"] = cuttable_share(program.program.exported.module(check_guards=False), program)["share"]
    row["stage"] = "cut"
    if not network.groups:
        raise SurgeryError("nothing can be cut")
    plan = _plan_cut(network)
    row["left"] = plan.cost.params / plan.dense.params
    return plan, sc.cut(model, plan)


@contextmanager
def count_calls(owner: type, method: str) -> Iterator[list[int]]:
    """Count the calls of a method within the context."""
    calls, function = [0], getattr(owner, method)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return function(*args, **kwargs)

    with patch.object(owner, method, counting):
        yield calls


def _plan_cut(network: sc.Network) -> sc.Plan:
    scores = sc.score(network, by="random", seed=SEED)
    try:
        return sc.plan(network, scores, {"params": KEEP})
    except sc.SecateurError:
        least = sc.reachable(network)["params"]
        return sc.plan(network, scores, {"params": (1 + least) / 2})


CUTTABLE = (nn.Linear, nn.modules.conv._ConvNd, nn.LSTM, nn.GRU, nn.MultiheadAttention)


def cuttable_share(model: nn.Module, network: sc.Network) -> Row:
    """Return the share of the layers' parameters that a plan can cut, and the parameters of which most is fixed.

    Args:
        model: the model.
        network: the traced model.
    """
    free_shares: dict[str, dict[int, float]] = {}
    for member in network.members:
        free_shares.setdefault(member.tensor, {})[member.axis] = float((member.units < 0).double().mean())
    layers = {
        path for path, module in model.named_modules()
        if isinstance(module, CUTTABLE) or type(module).__name__ in ("Conv1D", "NonDynamicallyQuantizableLinear")
        or (not list(module.children()) and any(p.dim() > 1 for p in module.parameters(recurse=False))
            and not isinstance(module, nn.Embedding))
    }  # fmt: skip
    total, fixed_counts = 0, {}
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        if path not in layers or parameter.dim() < 2:
            continue
        fixed = 1.0
        for axis in range(parameter.dim()):
            fixed *= free_shares.get(name, {}).get(axis, 1.0)
        total += parameter.numel()
        if fixed:
            fixed_counts[name] = fixed * parameter.numel()
    worst = sorted(fixed_counts.items(), key=lambda item: -item[1])[:6]
    share = 1 - sum(fixed_counts.values()) / total if total else 0.0
    return {"share": share, "held": [[name, round(count)] for name, count in worst if count > total / 100]}


def _difference(small: nn.Module, plan: sc.Plan, definition: Definition) -> float:
    torch.manual_seed(SEED + 2)
    batch = example_batch(definition.inputs())
    mask = plan.network.mask(plan.kept)
    with torch.no_grad():
        masked = run_masked(plan.network, batch, mask, plan.means)
        with masked_draws(plan.network, batch, mask, plan.means):
            return output_difference(small(*batch.args, **batch.kwargs), masked)[0]


def _is_restored(small: nn.Module, definition: Definition) -> bool:
    fresh, example = build_definition(definition)
    batch = example_batch(example)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        sc.save(small, folder)
        loaded = sc.load(fresh, folder)
        outputs = []
        for network in (loaded, small):
            torch.manual_seed(SEED + 3)
            outputs.append(pytree.tree_leaves(network(*batch.args, **batch.kwargs)))
        pairs = zip(*outputs, strict=True)
        return all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))
