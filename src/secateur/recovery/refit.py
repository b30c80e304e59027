"""Readers refitted by least squares: fed by the cut network, each gives what it gave in the dense one.

Layer after layer, in the order in which they run, the weights and the constant of each linear layer or convolution are
solved for so that its output comes as near as it can to the dense layer's, on the examples. The ridge pulls towards
the cut weights, not towards zero, and is chosen on examples held out of the fit. Batch norms are matched before.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.data import Batch, merged
from secateur.network.program import preserved, run_module
from secateur.network.units import Fold, Network
from secateur.recovery.batchnorm import MOST_EXAMPLES, match_batchnorm
from secateur.surgery.dropins import transparent
from secateur.surgery.recipe import Recipe

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MOST_ROWS = 40_000
MOST_FEATURES = 5_000
MOST_BYTES = 1 << 29


@dataclass(frozen=True)
class Sample:
    """What one layer reads and should give, at places drawn from the examples.

    Args:
        inputs: of the cut layer (places, features).
        wanted: the dense layer's output there, for the filters that stay (places, filters).
        fitted: which places are fitted on; the others choose the ridge.
    """

    inputs: Tensor
    wanted: Tensor
    fitted: Tensor


def refit(small: nn.Module, model: nn.Module, batches: Sequence[Batch], recipe: Recipe, network: Network) -> None:
    """Match the batch norms, then refit every reader, in place."""
    match_batchnorm(small, model, batches, recipe, network)
    batch = merged(batches, MOST_EXAMPLES)
    for reader in network.readers:
        fold = reader.fold
        if fold is not None and fold.groups == 1 and fold.inner == 1:
            path = fold.weight.rpartition(".")[0]
            if isinstance(small.get_submodule(path), nn.Linear | nn.Conv1d | nn.Conv2d):
                _refit_layer(small, model, batch, recipe, fold, path)


def _refit_layer(small: nn.Module, model: nn.Module, batch: Batch, recipe: Recipe, fold: Fold, path: str) -> None:
    layer: Any = small.get_submodule(path)
    features = layer.weight[0].numel()
    if features > MOST_FEATURES:
        warnings.warn(
            f"{path} was not refitted: it reads {features:,} values, {MOST_FEATURES:,} are the most", stacklevel=2
        )
        return
    with preserved(model):
        _, dense = _seen(transparent(model), batch, path)
    with preserved(small):
        inputs, output = _seen(transparent(small), batch, path)
    if len(inputs) == 0 or len(dense) == 0:
        warnings.warn(f"{path} was not refitted: it is not called as a module of its own", stacklevel=2)
        return
    inputs, output, dense = _as_many_as_fit(layer, inputs, output, dense)
    rows = _rows(layer, inputs)
    if not _is_product(layer, rows, output):
        warnings.warn(f"{path} was not refitted: {type(layer).__name__} computes something of its own", stacklevel=2)
        return
    kept = recipe.slices.get(fold.weight, {}).get(0)
    channel = -1 if isinstance(layer, nn.Linear) else 1
    wanted = dense if kept is None else dense.index_select(channel, kept.to(dense.device))
    sample = _sample(rows, _by_place(layer, wanted))
    target = dict((*small.named_parameters(), *small.named_buffers())).get(fold.tensor)
    start = layer.weight.flatten(1).double()
    if target is None:  # nowhere to put a constant
        layer.weight.data.copy_(_solve(sample, start).view_as(layer.weight))
        return
    ones = torch.ones(len(sample.inputs), 1, dtype=torch.float64, device=start.device)
    sample = replace(sample, inputs=torch.cat([sample.inputs, ones], 1))
    start = torch.cat([start, _constant(layer)[:, None]], 1)  # (filters, features + 1)
    solved = _solve(sample, start)
    layer.weight.data.copy_(solved[:, :-1].view_as(layer.weight))
    change = solved[:, -1] - start[:, -1]
    target.data.add_(-change if fold.kind == "running_mean" else change)


def _as_many_as_fit(layer: Any, *tensors: Tensor) -> list[Tensor]:
    """The same examples of each, evenly spread, so few that their rows fit in memory."""
    examples, channel = len(tensors[0]), -1 if isinstance(layer, nn.Linear) else 1
    places = max(tensor[0].numel() // tensor.shape[channel] for tensor in tensors)
    most = max(4, MOST_BYTES // (places * layer.weight[0].numel() * tensors[0].element_size()))
    if most >= examples:
        return list(tensors)
    chosen = torch.linspace(0, examples - 1, most).long()
    return [tensor[chosen.to(tensor.device)] for tensor in tensors]


def _constant(layer: Any) -> Tensor:
    zeros = torch.zeros(len(layer.weight), dtype=torch.float64, device=layer.weight.device)
    return zeros if layer.bias is None else layer.bias.detach().double()


def _seen(model: nn.Module, batch: Batch, path: str) -> tuple[Tensor, Tensor]:
    """What a layer reads and gives; nothing where it is not called."""
    seen: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_hook(
        lambda layer, args, output: seen.extend([args[0].detach().clone(), output.detach().clone()])
    )
    try:
        run_module(model, batch)
    finally:
        hook.remove()
    return (seen[0], seen[1]) if seen else (torch.zeros(0), torch.zeros(0))


def _sample(rows: Tensor, wanted: Tensor) -> Sample:
    """Rows at random places; a quarter of the examples is held out. Both are (examples, places, features or filters)"""
    examples, places = rows.shape[:2]
    chosen = torch.randperm(examples * places, generator=torch.Generator().manual_seed(0))[:MOST_ROWS]
    fitted = ((chosen // places) % 4 != 3).to(rows.device)
    chosen = chosen.to(rows.device)
    return Sample(rows.flatten(0, 1)[chosen].double(), wanted.flatten(0, 1)[chosen].double(), fitted)


def _rows(layer: Any, inputs: Tensor) -> Tensor:
    """The rows of a layer's matrix product. (examples, places, features)"""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), -1, inputs.shape[-1])
    around = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, around, mode=mode) if any(around) else inputs
    padded = padded.unsqueeze(2) if isinstance(layer, nn.Conv1d) else padded
    kernel, stride, dilation = ((1, *sizes)[-2:] for sizes in (layer.kernel_size, layer.stride, layer.dilation))
    return F.unfold(padded, kernel, dilation, 0, stride).transpose(1, 2)


def _by_place(layer: Any, output: Tensor) -> Tensor:
    """A layer's output beside its rows. (examples, places, filters)"""
    if isinstance(layer, nn.Linear):
        return output.reshape(len(output), -1, output.shape[-1])
    return output.flatten(2).transpose(1, 2)


def _is_product(layer: Any, rows: Tensor, output: Tensor) -> bool:
    """Whether the layer's output is its weight times those rows: a subclass may pad or scale in its own way."""
    expected = _by_place(layer, output)[:1]
    found = rows[:1] @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
    return found.shape == expected.shape and torch.allclose(
        found, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())
    )


def _solve(sample: Sample, start: Tensor) -> Tensor:
    """Weights (filters, features) by ridge least squares around `start`."""
    rows = sample.inputs
    missing = sample.wanted - rows @ start.T
    gram, moment = rows[sample.fitted].T @ rows[sample.fitted], rows[sample.fitted].T @ missing[sample.fitted]
    scale = gram.diagonal().mean().clamp_min(1e-12)
    identity = torch.eye(len(gram), dtype=torch.float64, device=gram.device)
    best, least = torch.zeros_like(start), float(missing[~sample.fitted].square().mean())
    for ridge in RIDGES:
        change = torch.linalg.solve(gram + ridge * scale * identity, moment).T
        left = float((missing[~sample.fitted] - rows[~sample.fitted] @ change.T).square().mean())
        if left < least:
            best, least = change, left
    return start + best
