"""Unified and pruned blocks on disk, beside plain weight pruning and 8-bit quantisation with the same entropy coder.

LeNet-300-100 on Fashion-MNIST; all get the same epochs. Sizes are those of files that were written and read back.
"""

import lzma
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import torch
from papers.datasets import Split, fashion
from torch import nn

from secateur.network.folded import copied
from secateur.sparsity.unification.codec import halved, load_compressed, save_compressed
from secateur.sparsity.unification.unification import Unification
from secateur.training.masks import held_at_zero
from sparsity.lenet import LeNet300, accuracy, train, trained

Row = dict[str, object]
LAYERS = ("first", "second", "last")
SETTINGS = ((0.5, 0.5, (1, 4)), (0.6, 0.4, (1, 4)), (0.6, 0.4, (1, 8)), (0.8, 0.2, (1, 4)))
EPOCHS = (6, 4)


def rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Size and accuracy of every way."""
    split = fashion(data)
    first, second = (1, 1) if quick else EPOCHS
    for seed in seeds[: 1 if quick else None]:
        dense = trained(split, seed, 1 if quick else 10)
        row: Row = {"seed": seed, "method": "float32", "accuracy": accuracy(dense, split), "times": 1.0}
        yield row
        yield {"seed": seed, "method": "16 bits, LZMA", **_written(halved(copied(dense, {})), {}, split)}
        yield {"seed": seed, "method": "8 bits, LZMA", **quantised(dense, split)}
        for density in (0.2, 0.1):
            model = pruned(dense, split, density, seed, first + second)
            shapes = {f"{name}.weight": (1, 1) for name in LAYERS}
            yield {
                "seed": seed,
                "method": f"any {density:.0%} of the weights, 16 bits",
                **_written(model, shapes, split),
            }
        for gone, unified, shape in SETTINGS[:1] if quick else SETTINGS:
            model, residual = structured(dense, split, (gone, unified), shape, seed, (first, second))
            name = f"{gone:.0%} pruned, {unified:.0%} unified, {shape[0]} x {shape[1]}"
            written = _written(model, {f"{layer}.weight": shape for layer in LAYERS}, split)
            yield {"seed": seed, "method": name, "residual": residual, **written}


def structured(
    dense: nn.Module, split: Split, fractions: tuple[float, float], shape: tuple[int, int], seed: int,
    epochs: tuple[int, int],
) -> tuple[nn.Module, float]:  # fmt: skip
    """ADMM, then the hard stage."""
    model = copied(dense, {})
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    blocks = Unification(model, optimizer, *fractions, shape=shape, rho=1e-2, every=468, only="*")
    train(model, split, epochs[0], seed, optimizer=optimizer)
    residual = max(blocks.residuals.values())
    blocks.harden()
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1e-3
    train(model, split, epochs[1], seed + 1, optimizer=optimizer)
    blocks.release()
    return halved(model), residual


def pruned(dense: nn.Module, split: Split, density: float, seed: int, epochs: int) -> nn.Module:
    """The largest weights of each layer, fine-tuned."""
    model = copied(dense, {})
    stays = {}
    for name in LAYERS:
        weight = model.get_parameter(f"{name}.weight").detach().abs()
        stays[f"{name}.weight"] = (
            weight >= weight.flatten().sort(descending=True).values[round(density * weight.numel())]
        )
    with held_at_zero(model, stays):
        pass
    with held_at_zero(model, stays):
        train(model, split, epochs, seed)
    return halved(model)


def quantised(dense: nn.Module, split: Split) -> Row:
    """Every weight matrix as integers of 8 bits with one scale for each row."""
    model = copied(dense, {})
    parts = []
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parts.append(parameter.numpy().tobytes())
                continue
            scale = parameter.abs().amax(1, keepdim=True) / 127
            whole = (parameter / scale).round()
            parts += [whole.to(torch.int8).numpy().tobytes(), scale.numpy().tobytes()]
            parameter.copy_(whole * scale)
    size = len(lzma.compress(b"".join(parts), preset=9 | lzma.PRESET_EXTREME))
    return {"accuracy": accuracy(model, split), "times": _dense_bytes(model) / size}


def _written(model: nn.Module, shapes: dict[str, tuple[int, int]], split: Split) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        found = save_compressed(model, Path(folder) / "model", shapes)
        again = load_compressed(LeNet300(), Path(folder) / "model").eval()
    return {"accuracy": accuracy(again, split), "times": found.dense_bytes / found.bytes}


def _dense_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * 4 for parameter in model.parameters())


def page(rows: list[Row]) -> list[str]:
    """One table."""
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
