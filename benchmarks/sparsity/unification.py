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
from statistics import mean

import torch
from papers.datasets import fashion
from rows import spread_text
from torch import nn

from secateur.graph.parametrizations import copy_model
from secateur.sparsity.unification.codec import halved, load_compressed, save_compressed
from secateur.sparsity.unification.unification import Unification
from secateur.training.masks import held_at_zero
from sparsity.tasks import TrainingTask, lenet, residual

Row = dict[str, object]
SETTINGS = ((0.5, 0.5, (1, 4)), (0.6, 0.4, (1, 4)), (0.6, 0.4, (1, 8)), (0.8, 0.2, (1, 4)))
EPOCHS = {"lenet": (10, 6, 4), "residual": (0, 3, 2)}


def unification_rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Yield the size and accuracy of every method."""
    split = fashion(data)
    tasks = [lenet(split, ("first", "second", "last")), residual(split)]
    for task in tasks[: 1 if quick else None]:
        for seed in seeds[: 1 if quick else None]:
            yield from rows_of_network(task, seed, (1, 1, 1) if quick else EPOCHS[task.name], quick)


def rows_of_network(task: TrainingTask, seed: int, epochs: tuple[int, int, int], quick: bool) -> Iterator[Row]:
    """Yield the rows of one trained network.

    Args:
        task: the network and its data.
        seed: the seed.
        epochs: of the dense network, of the training with blocks, and of the training after hardening.
        quick: run one setting alone.
    """
    first, second = epochs[1:]
    dense = task.dense(seed, epochs[0])
    row: Row = {"network": task.name, "seed": seed}
    yield row | {"method": "float32", "accuracy": task.accuracy(dense), "times": 1.0}
    if task.name != "lenet":
        longer_trained = copy_model(dense, {})
        task.train(longer_trained, first + second, seed)
        yield row | {"method": "float32, trained on", "accuracy": task.accuracy(longer_trained), "times": 1.0}
    yield row | {"method": "16 bits, LZMA", **_compressed_row(halved(copy_model(dense, {})), {}, task)}
    yield row | {"method": "8 bits, LZMA", **quantise(dense, task)}
    for density in (0.2, 0.1):
        model = prune_largest(dense, task, density, seed, first + second)
        compressed = _compressed_row(model, dict.fromkeys(task.weights, (1, 1)), task)
        yield row | {"method": f"any {density:.0%} of the weights, 16 bits", **compressed}
    for pruned, unified, shape in SETTINGS[:1] if quick else SETTINGS:
        model, residual = unify(dense, task, (pruned, unified), shape, seed, (first, second))
        name = f"{pruned:.0%} pruned, {unified:.0%} unified, {shape[0]} x {shape[1]}"
        compressed = _compressed_row(model, dict.fromkeys(task.weights, shape), task)
        yield row | {"method": name, "residual": residual, **compressed}


def unify(
    dense: nn.Module, task: TrainingTask, fractions: tuple[float, float], shape: tuple[int, int], seed: int,
    epochs: tuple[int, int],
) -> tuple[nn.Module, float]:  # fmt: skip
    """Train towards pruned and unified blocks by ADMM, harden them, and train on.

    Returns:
        The network in 16 bits, and the largest residual before hardening.
    """
    model = copy_model(dense, {})
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    every = len(task.split.labels) // 128
    blocks = Unification(model, optimizer, *fractions, shape=shape, rho=1e-2, every=every, only=task.layers)
    task.train(model, epochs[0], seed, optimizer=optimizer)
    residual_before_hardening = max(blocks.residuals.values())
    blocks.harden()
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1e-3
    task.train(model, epochs[1], seed + 1, optimizer=optimizer)
    blocks.release()
    return halved(model), residual_before_hardening


def prune_largest(dense: nn.Module, task: TrainingTask, density: float, seed: int, epochs: int) -> nn.Module:
    """Keep the largest weights of each layer, and fine-tune them; the network is in 16 bits."""
    model = copy_model(dense, {})
    kept = {}
    for name in task.weights:
        weight = model.get_parameter(name).detach().abs()
        kept[name] = weight >= weight.flatten().sort(descending=True).values[round(density * weight.numel())]
    with held_at_zero(model, kept):
        pass  # pruned entries are zero from here on
    with held_at_zero(model, kept):
        task.train(model, epochs, seed)
    return halved(model)


def quantise(dense: nn.Module, task: TrainingTask) -> Row:
    """Quantise every weight matrix to integers of 8 bits with one scale for each row, and measure the result."""
    model = copy_model(dense, {})
    streams = []
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                streams.append(parameter.numpy().tobytes())
                continue
            rows = parameter.flatten(1)
            scale = rows.abs().amax(1, keepdim=True) / 127
            whole = (rows / scale).round()
            streams += [whole.to(torch.int8).numpy().tobytes(), scale.numpy().tobytes()]
            parameter.copy_((whole * scale).view_as(parameter))
    size = len(lzma.compress(b"".join(streams), preset=9 | lzma.PRESET_EXTREME))
    return {"accuracy": task.accuracy(model), "times": _dense_bytes(model) / size}


def _compressed_row(model: nn.Module, shapes: dict[str, tuple[int, int]], task: TrainingTask) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        compressed = save_compressed(model, Path(folder) / "model", shapes)
        loaded = load_compressed(task.fresh(), Path(folder) / "model").eval()
    return {"accuracy": task.accuracy(loaded), "times": compressed.dense_bytes / compressed.bytes}


def _dense_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * 4 for parameter in model.parameters())


def unification_tables(rows: list[Row]) -> list[str]:
    """Return the lines of a table for each network."""
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        lines += [f"**{network}**", "", *_unification_lines([row for row in rows if row["network"] == network]), ""]
    return lines[:-1]


def _unification_lines(rows: list[Row]) -> list[str]:
    rows_by_method: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        rows_by_method[str(row["method"])].append(row)
    lines = ["| | times smaller | accuracy | residual before hardening |", "|---|--:|--:|--:|"]
    for method, of_method in rows_by_method.items():
        residual = f"{mean(float(row['residual']) for row in of_method):.2f}" if "residual" in of_method[0] else ""  # type: ignore[arg-type]
        accuracy = spread_text([100 * float(row["accuracy"]) for row in of_method])  # type: ignore[arg-type]
        times = mean(float(row["times"]) for row in of_method)  # type: ignore[arg-type]
        lines.append(f"| {method} | {times:.1f} | {accuracy} | {residual} |")
    return lines
