"""SPP: columns of convolutions pruned with probabilities, while a network is trained (Wang et al. 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from secateur.channel_graph.build import graph_of
from secateur.coupling.operator_results import results_of
from secateur.entry import entry_point
from secateur.errors import BudgetError, SurgeryError
from secateur.sparsity.dead_kernels import find_dead_kernels, plan_of, zero_kernels
from secateur.sparsity.spp.budget import MacBudget, counts_of
from secateur.sparsity.spp.columns import Columns
from secateur.sparsity.spp.probabilities import increments
from secateur.sparsity.spp.result import SPPResult
from secateur.sparsity.spp.start import columns_of, layers_to_prune, left_out
from secateur.surgery.cut import cut
from secateur.surgery.recipe import recipe_of
from secateur.tracing import trace
from secateur.training.optimizer_hooks import attach_optimizer_hooks, check_finite, check_holds, is_skipped


class SPP:
    """Prune columns with probabilities, while a network is trained.

    A column is one input channel at one place of the kernel, over all filters; in a grouped convolution it is the same
    one in all groups of channels. In every step each is masked by chance; what is masked takes no part in the forward
    and backward pass, and is not moved. Every `every` steps the chances of weak columns rise and those of strong ones
    fall, so that a column that was weak by accident recovers; one whose chance is 1 is gone for good. A layer that has
    its ratio ends: what survives is scaled once by the chance that it was there, and stays, while other layers go on.
    For a budget of MACs all layers end as soon as it is met; filters that no column reads any more count as gone, as
    `finish` cuts them. Training then goes on with fixed masks. It hooks itself to the optimizer, so the loop stays as
    it is; with gradient accumulation a step is what the optimizer does.

    Args:
        model: the model that is trained.
        example_inputs: as `trace` takes them.
        optimizer: that trains it.
        keep: `{"macs": 0.5}` or `{"columns": 0.5}`: the same ratio for all layers.
        ratios: the fraction of columns to prune, by globs of layers' names, in place of that ratio; the other layers
            lose as much more or less as a budget of MACs asks for.
        every: steps between two moves of the chances (published: 180).
        groups: "columns", or "channels": all places of a kernel at once, an option of ours.
        skip: globs of layers that stay whole; by default the first.
        seed: masks are drawn from it; processes that train together give the same.

    Raises:
        BudgetError: the budget can't be met.
        NameMatchError: a glob matches no layer.
        OptionError: the optimizer does not hold the weights of a layer to prune.
        SurgeryError: the model computes weights from others, or has no convolution to prune.

    Example:
        >>> import torch
        >>> layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 2, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.01)
        >>> spp = SPP(model, torch.randn(1, 1, 8, 8), optimizer, {"columns": 0.5}, every=1)
        >>> while not spp.done:
        ...     optimizer.zero_grad()
        ...     model(torch.randn(2, 1, 8, 8)).square().mean().backward()
        ...     optimizer.step()
        >>> spp.finish().columns
        {'2': (36, 18), '4': (4, 2)}
    """

    @entry_point
    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        optimizer: torch.optim.Optimizer,
        keep: Mapping[str, float] | None = None,
        *,
        ratios: Mapping[str, float] | None = None,
        every: int = 180,
        groups: str = "columns",
        skip: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if groups not in ("columns", "channels") or every < 1:
            raise BudgetError(f"groups={groups!r}, every={every}: groups are columns or channels, every is 1 or more")
        self.model, self.optimizer, self.every, self.groups = model, optimizer, every, groups
        self.network = trace(model, example_inputs)
        layers = layers_to_prune(model, self.network, skip)
        self.left_out = left_out(self.network, layers)
        counts = counts_of(self.network, layers, groups, keep, ratios)
        parameters = dict(model.named_parameters())
        check_holds(optimizer, {layer.name: parameters[layer.weight] for layer in layers})
        self.columns = [columns_of(layer, parameters[layer.weight], counts[layer.name], groups) for layer in layers]
        self.budget = self._mac_budget(keep)
        self.draws = torch.Generator().manual_seed(seed)
        self.steps = 0
        self.done = False
        self._hooks = attach_optimizer_hooks(optimizer, self._before, self._after)
        self._draw()

    def finish(self) -> SPPResult:
        """Take the masks' zeros into a smaller model: channels that nobody reads any more are cut.

        The model that was trained keeps its shape and its zeros; constants that dead channels leave are moved into the
        biases of those who read them, in it, too. `secateur.sparsity.packed_layers.gathered_conv.gathered` makes layers
        faster that have few columns left. Batch norms should see some training data after this
        (`torch.optim.swa_utils.update_bn`).

        Raises:
            BudgetError: not all layers have their ratio yet.
        """
        if not self.done:
            missing = {columns.layer.name: columns.missing for columns in self.columns if columns.missing > 0}
            raise BudgetError(f"columns are still to be pruned: {missing}; train on until spp.done")
        left = {each.layer.name: (len(each.group), int(each.kept.sum())) for each in self.columns}
        graph = graph_of(self.network)
        kept = {block.layer.weight: block.values.isfinite() for block in graph.layers if block.layer is not None}
        kept = find_dead_kernels(self.network, graph, kept, 0.0)
        zero_kernels(self.network, graph, kept)  # filters that nobody reads, also where others write into their channel
        plan = plan_of(self.network, graph, kept)
        recipe = recipe_of(self.model, plan)
        small = cut(self.model, plan, optimizer=self.optimizer)
        for hook in self._hooks:
            hook.remove()
        weights = {columns.layer.name: columns.layer.weight for columns in self.columns}
        return SPPResult(model=small, plan=plan, recipe=recipe, columns=left, weights=weights, left_out=self.left_out)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after an interruption, beside the model's and the optimizer's own states."""
        layers = {
            each.layer.weight: {"chances": each.chances, "masked": each.masked, "held": each.held.detach()}
            for each in self.columns
        }
        return {"steps": self.steps, "done": self.done, "draws": self.draws.get_state(), "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken, to the same masks.

        Raises:
            SurgeryError: it is of another network.
        """
        for each in self.columns:
            saved = state["layers"].get(each.layer.weight)
            if saved is None or saved["held"].shape != each.weight.shape or len(saved["chances"]) != len(each.chances):
                raise SurgeryError(f"the state has no such layer as {each.layer.name}; give that of the same network")
            if not bool(((saved["chances"] >= 0) & (saved["chances"] <= 1)).all()):
                raise SurgeryError(f"the chances of {each.layer.name} are not between 0 and 1")
        with torch.no_grad():
            for each in self.columns:
                saved = state["layers"][each.layer.weight]
                each.chances, each.held = saved["chances"].clone(), saved["held"].clone().to(each.weight)
                each.mask(saved["masked"].clone())
        self.steps, self.done = int(state["steps"]), bool(state["done"])
        self.draws.set_state(state["draws"])

    def _before(self) -> None:
        """Gradients of what is masked are nothing, so that momentum does not see them."""
        if is_skipped(self.optimizer):
            return
        for each in self.columns:
            gradient = each.weight.grad
            if gradient is None:
                continue
            check_finite(gradient, self.steps + 1, each.layer.name)
            gradient.masked_fill_(each.places(), 0)

    def _after(self) -> None:
        if is_skipped(self.optimizer):
            return
        self.steps += 1
        with torch.no_grad():
            for each in self.columns:
                each.updated()
            if not self.done and self.steps % self.every == 0:
                self._move()
        self._draw()

    def _mac_budget(self, keep: Mapping[str, float] | None) -> MacBudget | None:
        """What ends the pruning of all layers, beside their ratios."""
        if keep is None or "macs" not in keep:
            return None
        macs = results_of(self.network.program, self.network.example).macs
        return MacBudget(graph_of(self.network), macs, keep["macs"])

    def _move(self) -> None:
        """New chances; layers that have their ratio end, and all of them once the budget is met."""
        pruning = [columns for columns in self.columns if columns.missing > 0]
        for columns in pruning:
            _move_chances(columns)
        kept = {columns.layer.weight: columns.kept for columns in self.columns}
        is_met = self.budget is not None and self.budget.is_met(kept)
        for columns in pruning:
            if is_met or columns.missing <= 0:
                columns.free()
        self.done = is_met or all(columns.missing <= 0 for columns in self.columns)

    def _draw(self) -> None:
        """One draw for each group; the same in all processes that train together."""
        with torch.no_grad():
            for each in self.columns:
                draws = torch.rand(len(each.chances), generator=self.draws, dtype=torch.float64)
                each.mask(draws < each.chances)


def _move_chances(columns: Columns) -> None:
    """The chances of what is not gone for good rise or fall by ranks; never more go than the ratio asks for."""
    free = torch.nonzero(~columns.pruned).flatten()
    ranks = torch.empty(len(free), dtype=torch.double)
    ranks[columns.norms()[free].argsort(stable=True)] = torch.arange(len(free), dtype=torch.double)
    moved = (columns.chances[free] + increments(ranks, columns.missing)).clamp(0, 1)
    over = torch.nonzero(moved >= 1).flatten()
    late = over[ranks[over].argsort(stable=True)[columns.missing :]]
    moved[late] = columns.chances[free[late]]
    columns.chances[free] = moved
