"""Secateur on one definition: trace, cut to three quarters by random scores, verify, save, load, export."""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils import _pytree as pytree

import secateur as sc
from secateur.data.batch import Batch
from secateur.data.conversion import example_batches
from secateur.errors import SurgeryError
from secateur.graph.contexts import evaluation_mode
from secateur.graph.dynamic_shapes import dynamic_shapes
from secateur.graph.model_calls import plain_forward
from secateur.masking.ablation import masked_draws, run_masked
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.verify import output_difference
from wild.definitions import Definition
from wild.unchanged import Snapshot

Row = dict[str, Any]
SEED = 0
KEEP = 0.75
ENOUGH = 0.9


def build(definition: Definition) -> tuple[nn.Module, Any]:
    torch.manual_seed(SEED)
    model = definition.make().eval()
    _enliven(model)
    torch.manual_seed(SEED + 1)
    return model, definition.inputs()


def _enliven(model: nn.Module) -> None:
    """Fresh layers hide mistakes: scales of 1e-6, heads of nothing but zeros, batch norms that do nothing."""
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_floating_point() or tensor.dim() == 0 or tensor.numel() == 0:
            continue
        if bool((tensor == tensor.flatten()[0]).all()):
            noise = torch.rand_like(tensor) * 0.5
            tensor.data.copy_(0.2 * noise if bool((tensor == 0).all()) else 0.75 + noise)


def warm_up() -> None:
    """The first export of a process loads much of torch."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    sc.trace(model, torch.randn(2, 3, 8, 8))


def examine(definition: Definition) -> Row:
    """A row of the table; what went wrong stands under "failed", with the stage."""
    row: Row = {"stage": "make"}
    try:
        row |= _export_times(definition)
        model, example = build(definition)
        before = Snapshot(model, example)
        try:
            plan, small = _cut(row, model, example)
        finally:
            row["changed"] = before.changes(model, example)
        row["stage"] = "verify"
        row["difference"] = _difference(small, plan, definition)
        row["stage"] = "load"
        row["loaded"] = _survives(small, definition)
        row["stage"] = "export of the cut"
        if "export_s" in row:
            _export_seconds(small, example, cache_off="cache_off" in row)
    except Exception as failure:  # noqa: BLE001 (a benchmark reports whatever happens)
        raw = row["stage"] in OUR_STAGES and not isinstance(failure, sc.SecateurError)
        row |= {"failed": row["stage"], "raw": raw, "error": _shown(failure)}
    return row


OUTPUT = "is the network's output"
OUR_STAGES = ("trace", "cut", "verify", "load")


def _shown(failure: Exception) -> str:
    """An error in words, without the folders of one machine."""
    return re.sub(r'[^\s"]*/site-packages/', "", f"{type(failure).__name__}: {failure}")[:600]


def _cut(row: Row, model: nn.Module, example: Any) -> tuple[sc.Plan, nn.Module]:
    """Trace, score, plan and cut, with what each gives written into the row.

    Raises:
        SecateurError: a step refuses; "stage" in the row says which.
    """
    row["stage"] = "trace"
    start = time.process_time()
    with counted(TrialCutter, "run") as trials, counted(TrialCutter, "output") as joint_trials:
        network = sc.trace(model, example)
    row |= {"trace_s": time.process_time() - start, "trials": trials[0] + joint_trials[0]}
    row |= {"groups": len(network.groups), "units": network.units, **coverage(model, network)}
    row["frozen"] = [[f.name, f.units, f.operator, f.module, f.reason[:300]] for f in network.frozen]
    row["frozen_units"] = sum(f.units for f in network.frozen if OUTPUT not in f.reason)
    if row["share"] < ENOUGH:
        program = sc.trace(model, example, as_program=True)
        row["program_share"] = coverage(program.program.exported.module(check_guards=False), program)["share"]
    row["stage"] = "cut"
    if not network.groups:
        raise SurgeryError("nothing can be cut")
    plan = _plan(network)
    row["left"] = plan.cost.params / plan.dense.params
    return plan, sc.cut(model, plan)


@contextmanager
def counted(owner: type, method: str) -> Iterator[list[int]]:
    """Counts the calls of a method."""
    calls, function = [0], getattr(owner, method)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return function(*args, **kwargs)

    with patch.object(owner, method, counting):
        yield calls


def _export_times(definition: Definition) -> Row:
    """Seconds for the export that tracing needs and for the plain one; nothing where torch can't export the model.

    Of the first the faster of two; the plain one comes last, when torch knows the model's operators. Each has a fresh
    model, as some keep what the last export wrote into their attributes. Decoders, whose caches torch can't export, are
    exported without them.
    """
    for cache_off in (False, True):
        try:
            batched = min(_batched_seconds(*build(definition), cache_off) for _ in range(2))
            plain = _export_seconds(*build(definition), cache_off=cache_off)
            return {"batched_s": batched, "export_s": plain, **({"cache_off": True} if cache_off else {})}
        except Exception as failure:  # noqa: BLE001 (torch.export raises any type)
            reason = f"{type(failure).__name__}: {failure}"[:300]
    return {"not_exported": reason}


def _plan(network: sc.Network) -> sc.Plan:
    scores = sc.score(network, by="random", seed=SEED)
    try:
        return sc.plan(network, scores, {"params": KEEP})
    except sc.SecateurError:
        least = sc.reachable(network)["params"]
        return sc.plan(network, scores, {"params": (1 + least) / 2})


def _batch(example: Any) -> Batch:
    return example_batches(example, torch.device("cpu"))[0]


def _export_seconds(model: nn.Module, example: Any, shapes: Any = None, cache_off: bool = False) -> float:
    batch = _batch(example)
    start = time.process_time()
    with evaluation_mode(model), plain_forward(model, batch) if cache_off else nullcontext():
        torch.export.export(model, batch.args, dict(batch.kwargs), dynamic_shapes=shapes, strict=False)
    return time.process_time() - start


def _batched_seconds(model: nn.Module, example: Any, cache_off: bool) -> float:
    """The export with a batch that may vary, as tracing needs it; as it is given where the code does not allow that."""
    try:
        return _export_seconds(model, example, dynamic_shapes(model, _batch(example)), cache_off)
    except Exception:  # noqa: BLE001 (torch.export raises any type)
        return _export_seconds(model, example, cache_off=cache_off)


CUTTABLE = (nn.Linear, nn.modules.conv._ConvNd, nn.LSTM, nn.GRU, nn.MultiheadAttention)


def coverage(model: nn.Module, network: sc.Network) -> Row:
    """The share of the parameters of convolutions and linear layers that some plan can cut, and where it is low."""
    owned: dict[str, dict[int, float]] = {}
    for member in network.members:
        owned.setdefault(member.tensor, {})[member.axis] = float((member.units < 0).double().mean())
    layers = {
        path for path, module in model.named_modules()
        if isinstance(module, CUTTABLE) or type(module).__name__ in ("Conv1D", "NonDynamicallyQuantizableLinear")
        or (not list(module.children()) and any(p.dim() > 1 for p in module.parameters(recurse=False))
            and not isinstance(module, nn.Embedding))
    }  # fmt: skip
    total, held = 0, {}
    for name, parameter in model.named_parameters():
        path = name.rpartition(".")[0]
        if path not in layers or parameter.dim() < 2:
            continue
        fixed = 1.0
        for axis in range(parameter.dim()):
            fixed *= owned.get(name, {}).get(axis, 1.0)
        total += parameter.numel()
        if fixed:
            held[name] = fixed * parameter.numel()
    worst = sorted(held.items(), key=lambda item: -item[1])[:6]
    share = 1 - sum(held.values()) / total if total else 0.0
    return {"share": share, "held": [[name, round(count)] for name, count in worst if count > total / 100]}


def _difference(small: nn.Module, plan: sc.Plan, definition: Definition) -> float:
    torch.manual_seed(SEED + 2)
    batch = _batch(definition.inputs())
    mask = plan.network.mask(plan.kept)
    with torch.no_grad():
        masked = run_masked(plan.network, batch, mask, plan.means)
        with masked_draws(plan.network, batch, mask, plan.means):
            return output_difference(small(*batch.args, **batch.kwargs), masked)[0]


def _survives(small: nn.Module, definition: Definition) -> bool:
    fresh, example = build(definition)
    batch = _batch(example)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        sc.save(small, folder)
        loaded = sc.load(fresh, folder)
        outputs = []
        for network in (loaded, small):
            torch.manual_seed(SEED + 3)
            outputs.append(pytree.tree_leaves(network(*batch.args, **batch.kwargs)))
        pairs = zip(*outputs, strict=True)
        return all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))
