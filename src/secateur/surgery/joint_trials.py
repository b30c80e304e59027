"""Trial cuts that share runs of the dense program: each is compared on one example, with a mask of its own.

On a network that passes all of its trials, which most do, the runs with masks take most of the time. A failure is not
looked at here: it is found again, on all examples, by trials one after another.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from secateur.coupling.network import Kept, Network
from secateur.data.batch import Batch, concat_batches
from secateur.masking.ablation import MeanAblation, Means
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_shares import scaled_input
from secateur.surgery.verify import output_difference
from secateur.utils.devices import comparable_arithmetic


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial cut.

    Args:
        kept: the units that stay.
        means: of absent units, by consumer; empty: zero.
        is_strong: whether it runs on an example eight times as strong, where clipping shows.
    """

    kept: Kept
    means: Means
    is_strong: bool = False


@comparable_arithmetic()
def pass_together(cutter: TrialCutter, network: Network, trials: Sequence[Trial]) -> bool:
    """Return whether all trials pass, each on one example; False as well where they can't share runs.

    As many share one run as there are examples, so that it takes no more memory than a run on all of them.

    Args:
        cutter: cuts the model.
        network: the network before any trial.
        trials: the trials; the first one runs the cut model on all examples.
    """
    if not _can_share_runs(network):
        return False
    size = network.example.size or 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shared_runs = [trials[start : start + size] for start in range(0, len(trials), size)]
            return all(
                _outputs_agree(cutter, network, run_trials, run_trials[0] is trials[0]) for run_trials in shared_runs
            )
        except Exception:  # noqa: BLE001 the model's own code may raise anything, and does so again in a trial by itself
            return False


def _can_share_runs(network: Network) -> bool:
    """Return whether examples can be run with masks of their own, and told apart in the outputs."""
    program, example = network.program, network.example
    is_divided = example.is_divisible and (example.size or 1) > 1 and program.batched is not None
    return bool(network.groups) and is_divided and not program.draws and None not in _output_axes(network)


def _output_axes(network: Network) -> list[int | None]:
    """Return the axis of the examples of each output; None where there is none."""
    outputs = network.program.outputs
    return [network.program.batch_axis(out.meta.get("val")) if isinstance(out, Node) else None for out in outputs]


def _outputs_agree(cutter: TrialCutter, network: Network, trials: Sequence[Trial], on_all: bool) -> bool:
    """Return whether the outputs of cut models are those of the masked run."""
    examples = [_example_of(network.example, number, trial) for number, trial in enumerate(trials)]
    outputs = []
    for number, (trial, example) in enumerate(zip(trials, examples, strict=True)):
        runs_on_all = on_all and number == 0 and not trial.is_strong
        output = cutter.output(network, trial.kept, trial.means, network.example if runs_on_all else example)
        outputs.append(_entries_of(network, output, 0, (network.example.size or 1) if runs_on_all else 1))
    expected_output = _masked_output(network, trials, concat_batches(examples), cutter.weights)
    for number, output in enumerate(outputs):
        masked_entries = _entries_of(network, expected_output, number, len(trials))
        worst, tolerance = output_difference(output, masked_entries, network.program.lowest_type)
        if not worst <= tolerance:
            return False
    return True


def _example_of(batch: Batch, number: int, trial: Trial) -> Batch:
    example = batch.take(torch.tensor([number]))
    return example.map(scaled_input) if trial.is_strong else example


def _masked_output(network: Network, trials: Sequence[Trial], batch: Batch, weights: Mapping[str, Tensor]) -> Any:
    """Return the output of the dense program, for each example with the mask and the means of its trial."""
    masks = torch.stack([network.mask(trial.kept) for trial in trials])
    lengths = {key: mean for trial in trials for key, mean in trial.means.items()}
    means = {
        key: torch.stack([trial.means.get(key, torch.zeros_like(mean)) for trial in trials])  # (trials, size)
        for key, mean in lengths.items()
    }
    with torch.no_grad():
        return network.program.forward(batch, MeanAblation(means).handlers(network, masks), weights)


def _entries_of(network: Network, output: Any, number: int, examples: int) -> list[Tensor]:
    """Return what one of several examples has of each output."""
    leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
    entries = []
    for leaf, axis in zip(leaves, _output_axes(network), strict=True):
        assert axis is not None
        length = leaf.shape[axis] // examples
        entries.append(leaf.narrow(axis, number * length, length))
    return entries
