"""The base of the results below the unit: a model with zeros, one with fast kernels, and a report."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import nn

from secateur.coupling.cost import Cost
from secateur.coupling.network import Network
from secateur.coupling.operator_results import results_of
from secateur.coupling.plan import Plan
from secateur.coupling.summary import example_text
from secateur.data.batch import Batch
from secateur.errors import OptionError
from secateur.evaluation.kernel_selection import FastNetwork
from secateur.files import Writer, record_writer
from secateur.masking.linear_layers import layers_of
from secateur.masking.transposed_layers import transposed_layers_of
from secateur.options.call_checks import checked_calls
from secateur.pruning.results import PruningResult
from secateur.report.figures import LayerFigures
from secateur.report.report import Report
from secateur.report.sparsity_report import SparseFacts, measure_sparsity
from secateur.sparsity.saved_kernels import KERNELS_FILE, SavedKernels
from secateur.training.session import TrainingSession


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run.

    Args:
        method: the name of the method, such as "spp".
        note: its options, in words.
        keep: the budget.
    """

    method: str
    note: str
    keep: Mapping[str, float]


@checked_calls
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SparseResult(PruningResult):
    """A network that was made sparse below the unit.

    Args:
        model: the model: of the dense one's class, with zeros in its weights, channels cut where they died.
        plan: by which channels were cut.
        session: the dense network and the examples to measure with; None where the user's own loop trained it.
        run: with what the method was run; None where the user's own loop trained it.
    """

    session: TrainingSession | None = None
    run: RunSettings | None = None

    @property
    def _example(self) -> Batch:
        """The batch that kernels are timed on."""
        return self.plan.network.example if self.session is None else self.session.example

    @cached_property
    def fast(self) -> FastNetwork:
        """The model with the fastest kernel for each layer, timed on its input."""
        return self._fastest()

    @cached_property
    def report(self) -> Report:
        """The dense network, this one and the fast one, measured on the same examples.

        Raises:
            OptionError: the method ran in the user's own training loop, so there are no examples to measure on.
        """
        if self.session is None or self.run is None:
            raise OptionError(
                f"this {type(self).__name__} is of a training loop of your own, which keeps no examples to measure on; "
                "secateur.sparsity.spp(model, data) and unify(model, data) train and measure"
            )
        network = self.plan.network
        facts = SparseFacts(
            title=network.title,
            method=self.run.method,
            note=self.run.note,
            seed=self.session.settings.seed,
            keep=self.run.keep,
            dense=network.cost(),
            cost=self._cost(),
            groups={name: (network[name].size, len(units)) for name, units in self.plan.kept.items()},
            kinds={name: network[name].kind for name in self.plan.kept},
            layers=self._layer_figures(),
            ratios=self._ratios(),
            notes=self._notes(),
            inputs=example_text(network),
        )
        session = self.session
        return measure_sparsity(session.dense, self.model, self.fast.model, facts, session.measured)

    def measured(self, session: TrainingSession, run: RunSettings) -> Self:
        """Return the same result, with what its report is measured on."""
        return replace(self, session=session, run=run)

    def _figures(self) -> Report | None:
        return None if self.session is None else self.report

    def _companions(self) -> Mapping[str, Writer]:
        return {KERNELS_FILE: record_writer(self._saved_kernels())}

    def _fastest(self) -> FastNetwork:
        """Return the model itself, for methods without kernels."""
        return FastNetwork(self.model, {})

    def _saved_kernels(self) -> SavedKernels:
        return SavedKernels(SavedKernels.FORMAT, {name: choice.kernel for name, choice in self.fast.choices.items()})

    def _structures(self) -> Mapping[str, str]:
        """Return a description of the entries that are not zero, by the names of weights."""
        return {}

    def _ratios(self) -> Mapping[str, float]:
        return {}

    def _notes(self) -> tuple[str, ...]:
        return ()

    def _cost(self) -> Cost:
        return sparse_cost(self.plan, self.model)

    def _layer_figures(self) -> dict[str, LayerFigures]:
        sizes = _dense_sizes(self.plan.network)
        figures = {}
        for name, structure in self._structures().items():
            weight = self.model.get_parameter(name)
            choice = self.fast.choices.get(name)
            figures[name] = LayerFigures(
                sizes.get(name, weight.numel()),
                int(torch.count_nonzero(weight)),
                structure,
                *(() if choice is None else (choice.kernel, choice.dense_ms, choice.kernel_ms)),
            )
        return figures


def whole_plan(network: Network, keep: Mapping[str, float]) -> Plan:
    """Return a plan that keeps all units, for methods that cut none."""
    kept = {group.name: torch.arange(group.size) for group in network.groups}
    return Plan(network, kept, {}, network.cost(), network.cost(), dict(keep))


def sparse_cost(plan: Plan, model: nn.Module) -> Cost:
    """Return the parameters, MACs and bytes that are left where zeros in the weights of layers count for nothing.

    Args:
        plan: by which units were cut.
        model: what it left, with zeros.
    """
    network, cost = plan.network, plan.cost
    macs = results_of(network.program, network.example).macs
    sizes, parameters = _dense_sizes(network), dict(model.named_parameters())
    params, work, size = cost.params, float(cost.macs), cost.bytes
    examples = network.example.size or 1
    for layer in (*layers_of(network), *transposed_layers_of(network)):
        weight = parameters.get(layer.weight)
        if weight is None:
            continue
        zeros = weight.numel() - int(torch.count_nonzero(weight))
        params -= zeros
        size -= zeros * weight.element_size()
        work -= macs[layer.node] / examples * zeros / sizes[layer.weight]
    return Cost(params, round(work), size)


def _dense_sizes(network: Network) -> dict[str, int]:
    """Return the number of entries of each layer's weight in the dense network."""
    layers = (*layers_of(network), *transposed_layers_of(network))
    return {layer.weight: network.program.state(layer.weight).numel() for layer in layers}
