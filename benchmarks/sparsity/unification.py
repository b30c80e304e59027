"""Size of unified and pruned blocks on disk, of plain weight pruning and of 8-bit quantisation, by one entropy coder.

The networks are LeNet-300-100 and the residual network of the benchmarks on Fashion-MNIST. In the latter, the 3 x 3
convolutions except the first are compressed, 98 % of its weights. All methods train for the same number of epochs, ten
on LeNet, five on the other. Sizes are those of files that were written and read back.
"""

import lzma
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import torch
from papers.datasets import fashion
from torch import nn

from secateur.graph.parametrizations import copy_model
from secateur.sparsity.unification.codec import halved, load_compressed, save_compressed
from secateur.sparsity.unification.unification import Unification
from secateur.training.masks import held_at_zero
from sparsity.tasks import Task, lenet, residual

Row = dict[str, object]
SETTINGS = ((0.5, 0.5, (1, 4)), (0.6, 0.4, (1, 4)), (0.6, 0.4, (1, 8)), (0.8, 0.2, (1, 4)))
EPOCHS = {"lenet": (10, 6, 4), "residual": (0, 3, 2)}


def rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Size and accuracy of every way."""
    split = fashion(data)
    tasks = [lenet(split, ("first", "second", "last")), residual(split)]
    for task in tasks[: 1 if quick else None]:
        for seed in seeds[: 1 if quick else None]:
            yield from of_one(task, seed, (1, 1, 1) if quick else EPOCHS[task.name], quick)


def of_one(task: Task, seed: int, epochs: tuple[int, int, int], quick: bool) -> Iterator[Row]:
    """Of one trained network."""
    first, second = epochs[1:]
    dense = task.dense(seed, epochs[0])
    row: Row = {"network": task.name, "seed": seed}
    yield row | {"method": "float32", "accuracy": task.accuracy(dense), "times": 1.0}
    if task.name != "lenet":
        more = copy_model(dense, {})
        task.train(more, first + second, seed)
        yield row | {"method": "float32, trained on", "accuracy": task.accuracy(more), "times": 1.0}
    yield row | {"method": "16 bits, LZMA", **_written(halved(copy_model(dense, {})), {}, task)}
    yield row | {"method": "8 bits, LZMA", **quantised(dense, task)}
    for density in (0.2, 0.1):
        model = pruned(dense, task, density, seed, first + second)
        written = _written(model, dict.fromkeys(task.weights, (1, 1)), task)
        yield row | {"method": f"any {density:.0%} of the weights, 16 bits", **written}
    for gone, unified, shape in SETTINGS[:1] if quick else SETTINGS:
        model, residual = structured(dense, task, (gone, unified), shape, seed, (first, second))
        name = f"{gone:.0%} pruned, {unified:.0%} unified, {shape[0]} x {shape[1]}"
        written = _written(model, dict.fromkeys(task.weights, shape), task)
        yield row | {"method": name, "residual": residual, **written}


def structured(
    dense: nn.Module, task: Task, fractions: tuple[float, float], shape: tuple[int, int], seed: int,
    epochs: tuple[int, int],
) -> tuple[nn.Module, float]:  # fmt: skip
    """ADMM, then the hard stage."""
    model = copy_model(dense, {})
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    every = len(task.split.labels) // 128
    blocks = Unification(model, optimizer, *fractions, shape=shape, rho=1e-2, every=every, only=task.layers)
    task.train(model, epochs[0], seed, optimizer=optimizer)
    residual = max(blocks.residuals.values())
    blocks.harden()
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1e-3
    task.train(model, epochs[1], seed + 1, optimizer=optimizer)
    blocks.release()
    return halved(model), residual


def pruned(dense: nn.Module, task: Task, density: float, seed: int, epochs: int) -> nn.Module:
    """The largest weights of each layer, fine-tuned."""
    model = copy_model(dense, {})
    stays = {}
    for name in task.weights:
        weight = model.get_parameter(name).detach().abs()
        stays[name] = weight >= weight.flatten().sort(descending=True).values[round(density * weight.numel())]
    with held_at_zero(model, stays):
        pass
    with held_at_zero(model, stays):
        task.train(model, epochs, seed)
    return halved(model)


def quantised(dense: nn.Module, task: Task) -> Row:
    """Every weight matrix as integers of 8 bits with one scale for each row."""
    model = copy_model(dense, {})
    parts = []
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parts.append(parameter.numpy().tobytes())
                continue
            rows = parameter.flatten(1)
            scale = rows.abs().amax(1, keepdim=True) / 127
            whole = (rows / scale).round()
            parts += [whole.to(torch.int8).numpy().tobytes(), scale.numpy().tobytes()]
            parameter.copy_((whole * scale).view_as(parameter))
    size = len(lzma.compress(b"".join(parts), preset=9 | lzma.PRESET_EXTREME))
    return {"accuracy": task.accuracy(model), "times": _dense_bytes(model) / size}


def _written(model: nn.Module, shapes: dict[str, tuple[int, int]], task: Task) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        found = save_compressed(model, Path(folder) / "model", shapes)
        again = load_compressed(task.fresh(), Path(folder) / "model").eval()
    return {"accuracy": task.accuracy(again), "times": found.dense_bytes / found.bytes}


def _dense_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * 4 for parameter in model.parameters())


def page(rows: list[Row]) -> list[str]:
    """A table for each network."""
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        lines += [f"**{network}**", "", *_table([row for row in rows if row["network"] == network]), ""]
    return lines[:-1]


def _table(rows: list[Row]) -> list[str]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[str(row["method"])].append(row)
    lines = ["| | times smaller | accuracy | residual before hardening |", "|---|--:|--:|--:|"]
    for method, own in found.items():
        residual = f"{mean(float(row['residual']) for row in own):.2f}" if "residual" in own[0] else ""  # type: ignore[arg-type]
        values = [100 * float(row["accuracy"]) for row in own]  # type: ignore[arg-type]
        shown = f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")
        lines.append(f"| {method} | {mean(float(row['times']) for row in own):.1f} | {shown} | {residual} |")  # type: ignore[arg-type]
    return lines
