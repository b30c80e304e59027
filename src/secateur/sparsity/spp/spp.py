"""SPP: columns of convolutions pruned with probabilities while a network is trained (Wang et al. 2018)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateur.entry import entry_point
from secateur.errors import BudgetError, SurgeryError
from secateur.options.call_checks import checked_calls
from secateur.options.selections import Selection
from secateur.sparsity.dead_kernels import cut_dead_channels
from secateur.sparsity.spp.budget import mac_budget, prune_counts
from secateur.sparsity.spp.columns import columns_of
from secateur.sparsity.spp.layer_selection import layers_to_prune, left_out
from secateur.sparsity.spp.result import SPPResult
from secateur.training.method import TrainingMethod
from secateur.training.traced_network import traced_network
from secateur.utils.deprecation import renamed_attribute


@checked_calls
class SPP(TrainingMethod):
    """Prune columns of convolutions with probabilities, while a network is trained.

    A column is one input channel at one position of the kernel, over all filters; in a grouped convolution it is the
    same one in all groups of channels. In every step each column is masked with its probability: a masked column takes
    no part in the forward and the backward pass, and is not moved. Every `every` steps the probabilities of weak
    columns rise and those of strong ones fall, such that a column that was weak by accident recovers. A column whose
    probability reaches 1 is pruned for good. A layer that has reached its ratio is finished: its remaining columns are
    scaled once by their probability to be present and are no longer masked, while other layers continue. With a budget
    of MACs all layers are finished as soon as it is met; filters that no column reads any more count as removed, as
    `finish` cuts them. Training then continues with fixed masks.

    The method hooks itself to the optimizer, so the training loop stays as it is; with gradient accumulation a step is
    a step of the optimizer.

    Args:
        model: the model that is trained.
        example_inputs: inputs as `trace` takes them; or a network that was traced.
        optimizer: the optimizer that trains the model.
        keep: `{"macs": 0.5}` or `{"columns": 0.5}`: the same ratio for all layers.
        ratios: the fraction of columns to prune, by globs of layers' names, in place of that ratio; the other layers
            lose more or fewer columns, as a budget of MACs requires.
        every: steps between two changes of the probabilities (published: 180).
        groups: "columns", or "channels": all positions of a kernel together, an option of ours.
        skip: globs, modules or classes of modules that are not pruned; by default the first.
        seed: the seed of the masks; processes that train together give the same.

    Attributes:
        is_finished: whether all layers are finished.
        columns: the state of each layer.
        left_out: the convolutions that are not pruned, with the reasons.

    Raises:
        BudgetError: The budget cannot be met.
        NameMatchError: A glob matches no layer.
        OptionError: The optimizer does not hold the weights of a layer to prune.
        SurgeryError: The model computes weights from others, or has no convolution to prune.

    Examples:
        >>> import torch
        >>> layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3), torch.nn.ReLU()]
        >>> model = torch.nn.Sequential(*layers, torch.nn.Conv2d(4, 2, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.01)
        >>> spp = SPP(model, torch.randn(1, 1, 8, 8), optimizer, {"columns": 0.5}, every=1)
        >>> while not spp.is_finished:
        ...     optimizer.zero_grad()
        ...     model(torch.randn(2, 1, 8, 8)).square().mean().backward()
        ...     optimizer.step()
        >>> spp.finish().columns
        {'2': (36, 18), '4': (4, 2)}
    """

    done = renamed_attribute("done", "is_finished")

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
        skip: Selection | None = None,
        seed: int = 0,
    ) -> None:
        if groups not in ("columns", "channels") or every < 1:
            raise BudgetError(f"groups={groups!r}, every={every}: groups are columns or channels, every is 1 or more")
        self.network = traced_network(model, example_inputs)
        layers = layers_to_prune(model, self.network, skip)
        counts = prune_counts(self.network, layers, groups, keep, ratios)
        parameters = dict(model.named_parameters())
        super().__init__(model, optimizer, {layer.name: parameters[layer.weight] for layer in layers})
        self.every, self.groups, self.left_out = every, groups, left_out(self.network, layers)
        self.columns = [columns_of(layer, parameters[layer.weight], counts[layer.name], groups) for layer in layers]
        self.budget = mac_budget(self.network, keep)
        self.draws = torch.Generator().manual_seed(seed)
        self.is_finished = False
        self.attach()
        self._draw_masks()

    def finish(self) -> SPPResult:
        """Remove the channels that no column reads any more, and return the smaller model.

        The trained model keeps its shapes and its zeros; constants that dead channels leave are added to the biases of
        their consumers, in the trained model, too. `secateur.sparsity.gathered` makes layers with few remaining columns
        faster. Let batch norms see some training data after this (`torch.optim.swa_utils.update_bn`).

        Raises:
            BudgetError: Some layers have not reached their ratio.
        """
        if not self.is_finished:
            missing = {columns.layer.name: columns.missing for columns in self.columns if columns.missing > 0}
            raise BudgetError(f"columns are still to be pruned: {missing}; train on until spp.is_finished")
        small, plan, recipe = cut_dead_channels(self.model, self.network, self.optimizer)
        self.release()
        counts = {
            columns.layer.name: (len(columns.group), int(columns.kept.sum())) for columns in self.columns
        }  # fmt: skip
        weights = {columns.layer.name: columns.layer.weight for columns in self.columns}
        return SPPResult(model=small, plan=plan, recipe=recipe, columns=counts, weights=weights, left_out=self.left_out)

    def method_state(self) -> dict[str, Any]:
        """Return the probabilities, the masks and the weights without masks of each layer."""
        layers = {
            columns.layer.weight: {
                "chances": columns.chances, "masked": columns.masked, "held": columns.unmasked_weight
            }
            for columns in self.columns
        }  # fmt: skip
        return {"is_finished": self.is_finished, "draws": self.draws.get_state(), "layers": layers}

    def check_method_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state has the layers of this network.

        Raises:
            SurgeryError: It belongs to another network.
        """
        for columns in self.columns:
            saved_columns, name = state["layers"].get(columns.layer.weight), columns.layer.name
            shapes = (columns.weight.shape, columns.chances.shape)
            if saved_columns is None or (saved_columns["held"].shape, saved_columns["chances"].shape) != shapes:
                raise SurgeryError(f"the state has no such layer as {name}; give that of the same network")
            if not bool(((saved_columns["chances"] >= 0) & (saved_columns["chances"] <= 1)).all()):
                raise SurgeryError(f"the probabilities of {name} in the state are not between 0 and 1")

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Take over the probabilities, the masks and the weights of each layer."""
        for columns in self.columns:
            saved_columns = state["layers"][columns.layer.weight]
            columns.chances = saved_columns["chances"]
            columns.unmasked_weight = saved_columns["held"].to(columns.weight)
            columns.apply_mask(saved_columns["masked"])
        name = "is_finished" if "is_finished" in state else "done"  # before 0.14
        self.is_finished = bool(state[name])
        self.draws.set_state(state["draws"])

    def before_step(self) -> None:
        """Zero the gradients of masked columns, so that momentum does not include them."""
        for columns in self.columns:
            gradient = self.finite_gradient(columns.layer.name, columns.weight)
            if gradient is not None:
                gradient.masked_fill_(columns.masked_entries(), 0)

    def after_step(self) -> None:
        """Take over the moved weights, move the probabilities where it is time, and draw new masks."""
        for columns in self.columns:
            columns.store_step()
        if not self.is_finished and self.steps % self.every == 0:
            self._move_chances()
        self._draw_masks()

    def _move_chances(self) -> None:
        """Move the probabilities; finish layers that reach their ratio, and all layers once the budget is met."""
        unfinished_columns = [columns for columns in self.columns if columns.missing > 0]
        for columns in unfinished_columns:
            columns.move_chances()
        kept = {columns.layer.weight: columns.kept for columns in self.columns}
        is_met = self.budget is not None and self.budget.is_met(kept)
        for columns in unfinished_columns:
            if is_met or columns.missing <= 0:
                columns.finish()
        self.is_finished = is_met or all(columns.missing <= 0 for columns in self.columns)

    def _draw_masks(self) -> None:
        """Draw one number for each group; the same in all processes that train together."""
        with torch.no_grad():
            for columns in self.columns:
                columns.draw_mask(self.draws)
