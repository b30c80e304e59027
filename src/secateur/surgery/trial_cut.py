"""A trial cut: cut a model temporarily, compare it with the masked run, and locate failures."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from secateur.coupling.module_slices import ModuleSlices
from secateur.coupling.network import Kept, Network
from secateur.data.batch import Batch
from secateur.errors import SecateurError
from secateur.graph.contexts import buffers_kept, isolated_evaluation, parameters_kept, training_mode
from secateur.graph.model_calls import call_model
from secateur.graph.model_copies import copy_sharing_parameters
from secateur.graph.remembered_state import empty_caches
from secateur.masking.ablation import Means, masked_draws, run_masked
from secateur.surgery.aliased_model import AliasedModel
from secateur.surgery.attribute_reads import AttributeReads, attribute_reads
from secateur.surgery.cut_copy import cut_copy, fold_constants, removed_constants
from secateur.surgery.program_modules import ProgramModule, input_values
from secateur.surgery.recipe import make_recipe
from secateur.surgery.stand_in_weights import stand_in_weights, with_stand_ins
from secateur.surgery.trial_failures import Failure, difference_reason, failing_module
from secateur.surgery.trial_shares import scaled_input
from secateur.surgery.verify import output_difference
from secateur.utils.devices import comparable_arithmetic
from secateur.utils.failure_text import failure_text
from secateur.utils.progress import advance

TrialFn = tuple[bool, tuple[tuple[str, tuple[int, ...]], ...]]


class TrialCutter:
    """Trial cuts of a model, which is not changed.

    Args:
        model: the dense model, or the module that runs its program.

    Attributes:
        far: whether trials run on the example eight times as strong, where clipping shows.
        weights: the values in place of zeros, by parameter, with which both the cut model and the masked program run.
    """

    def __init__(self, model: nn.Module) -> None:
        self.far = False
        self.weights = stand_in_weights(model)
        self._slices: ModuleSlices | None = None
        if isinstance(model, fx.GraphModule):
            self.model, self._shadow = _with_weights(model, self.weights), None
        else:
            self.model, self._shadow = model, AliasedModel(model, self.weights)
        self._outcomes: WeakKeyDictionary[Network, dict[TrialFn, Failure | None]] = WeakKeyDictionary()

    def run(self, network: Network, kept: Kept, means: Means) -> Failure | None:
        """Cut, run and compare; return the failure, or None.

        The search for the groups that fail asks for the same trial more than once, from the inner module and again from
        those that hold it. The outcome of a trial without means is remembered for as long as its network lives.
        """
        if means:
            return self._run(network, kept, means)
        outcomes = self._outcomes.setdefault(network, {})
        trial = (self.far, tuple((name, tuple(kept_units.tolist())) for name, kept_units in kept.items()))
        if trial not in outcomes:
            advance()
            outcomes[trial] = self._run(network, kept, means)
        return outcomes[trial]

    @comparable_arithmetic()
    def _run(self, network: Network, kept: Kept, means: Means) -> Failure | None:
        try:
            with self._cut(network, kept, means) as small, torch.random.fork_rng(devices=[]):
                return self._failure(small, network, kept, means)
        except Exception as failure:  # noqa: BLE001 the user's code may raise anything
            return Failure(f"{network.title} can't be cut for trial: {failure_text(failure)}", "", -1)

    def _failure(self, small: nn.Module, network: Network, kept: Kept, means: Means) -> Failure | None:
        batch = network.example.map(scaled_input) if self.far else network.example
        mask = network.mask(kept)
        try:
            with masked_draws(network, batch, mask, means, self.weights):
                output = call_model(small, batch)
        except Exception as failure:  # noqa: BLE001 the model's own code may raise anything
            reason = f"the cut {network.title} can't be run: {failure_text(failure)}"
            return Failure(reason, failing_module(small, failure), self._shadow.calls if self._shadow else 0)
        try:
            expected_output = run_masked(network, batch, mask, means, self.weights)
            worst, tolerance = output_difference(output, expected_output, network.program.lowest_type)
        except SecateurError as failure:
            return Failure(str(failure), None, float("inf"))
        return (
            None
            if worst <= tolerance
            else Failure(difference_reason(network, kept, worst, tolerance), None, float("inf"))
        )

    def output(self, network: Network, kept: Kept, means: Means, batch: Batch) -> Any:
        """Return the output of a cut model; its code may raise anything."""
        advance()
        with self._cut(network, kept, means) as small, torch.random.fork_rng(devices=[]):
            return call_model(small, batch)

    def failure_in_training(self, network: Network, kept: Kept) -> str | None:
        """Return the module in which a cut model fails in training mode; None where it runs. It holds no program."""
        advance()
        with self._cut(network, kept, {}) as small, torch.random.fork_rng(devices=[]), training_mode(small):
            try:
                call_model(small, network.example)
            except Exception as failure:  # noqa: BLE001 the model's own code may raise anything
                return failing_module(small, failure) or network.title
        return None

    def passes(self, network: Network, kept: Kept, before: Failure) -> bool:
        """Return whether a trial gets further than an earlier one."""
        failure = self.run(network, kept, {}) if kept else None
        return failure is None or failure.progress > before.progress

    def reads(self, network: Network, kept: Kept) -> AttributeReads | None:
        """Return the attributes that the model's code reads in a trial; other attributes can't affect it.

        None where what is cut is a program, whose code reads none.
        """
        if self._shadow is None:
            return None
        with (
            self._cut(network, kept, {}) as small,
            torch.random.fork_rng(devices=[]),
            attribute_reads(small) as reads,
            suppress(Exception),  # where the trial failed, the code raises that again
        ):
            call_model(small, network.example)
        return reads

    def slices(self, network: Network) -> ModuleSlices:
        """Return the programs of the model's modules."""
        self._slices = self._slices or ModuleSlices(self.model, network.program, network.example)
        return self._slices

    def input_shapes(self, network: Network, kept: Kept) -> dict[str, dict[str, tuple[int, ...]]]:
        """Return the input shapes of modules that run programs, in a cut, by path and name; of the last call."""
        shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        with self._cut(network, kept, {}) as small, torch.no_grad():
            handles = [
                small.get_submodule(path).register_forward_pre_hook(_watch(path, shapes), with_kwargs=True)
                for path in network.module_programs
                if isinstance(small.get_submodule(path), ProgramModule)  # not where this cut changes no number
            ]
            try:
                call_model(small, network.example)
            finally:
                for handle in handles:
                    handle.remove()
        return shapes

    @contextmanager
    def _cut(self, network: Network, kept: Kept, means: Means) -> Iterator[nn.Module]:
        """Yield the cut model; warnings of its code, such as a deviation of one value, decide nothing in a trial."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with self._cut_model(network, kept, means) as small:
                yield small

    @contextmanager
    def _cut_model(self, network: Network, kept: Kept, means: Means) -> Iterator[nn.Module]:
        if self._shadow is None:
            small = cut_copy(self.model, network, kept, means)[0]
            with isolated_evaluation(small, network.program.writes):
                yield small
            return
        double = self._shadow.model
        empty_caches(double, network.program.caches)
        with self._shadow.cut(make_recipe(double, network, kept, folds=bool(means))) as small:
            fold_constants(small, removed_constants(self.model, network, kept, means))
            writes_undone = parameters_kept(small) if network.program.writes else nullcontext()
            with buffers_kept(small), writes_undone, torch.no_grad():
                yield small


def _with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a module with other values of some parameters: a copy, or itself if there are none."""
    if not weights:
        return model
    model_copy = copy_sharing_parameters(model)
    with_stand_ins(model_copy, weights)
    return model_copy


def _watch(path: str, shapes: dict[str, dict[str, tuple[int, ...]]]) -> Callable[..., None]:
    """Return a hook that records the shapes of the inputs of a module that runs a program."""

    def watch(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the shapes."""
        values = input_values(module, module.module_program, args, kwargs)
        shapes[path] = {name: tuple(value.shape) for name, value in values.items() if isinstance(value, Tensor)}

    return watch
