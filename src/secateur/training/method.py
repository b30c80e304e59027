"""The base of methods that prune weights while a network is trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from secateur.errors import OptionError, SurgeryError
from secateur.options.call_checks import checked_calls
from secateur.training.optimizer_hooks import (
    attach_optimizer_hooks,
    check_finite,
    check_holds,
    check_same_model,
    is_skipped,
)


@checked_calls
class TrainingMethod(ABC):
    """A method that changes weights while a network is trained, by hooks on the optimizer.

    The training loop stays as it is. `before_step` runs when the gradients of a step are computed and before the
    optimizer uses them, `after_step` when the optimizer has moved the weights. Steps that a gradient scaler skips are
    not counted, and neither runs in them. A subclass calls `attach` at the end of its `__init__`.

    To resume an interrupted training, a subclass with a state of its own overrides `method_state`,
    `check_method_state` and `load_method_state`.

    Args:
        model: the model that is trained.
        optimizer: the optimizer that trains it.
        weights: the parameters that are pruned, by the names that messages show; the optimizer must hold all of them.
            By default it must hold some parameter of the model.

    Attributes:
        steps: the number of steps that the optimizer has made.

    Raises:
        OptionError: The optimizer does not hold these parameters, or `weights` is no mapping of names to parameters.

    Examples:
        >>> class NonNegative(TrainingMethod):
        ...     def __init__(self, model, optimizer):
        ...         super().__init__(model, optimizer)
        ...         self.attach()
        ...     def after_step(self):
        ...         self.model.weight.clamp_(min=0)
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
        >>> method = NonNegative(model, optimizer)
        >>> model(torch.randn(8, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> method.steps, bool((model.weight >= 0).all())
        (1, True)
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        if weights is None:
            check_same_model(optimizer, model)
        elif not _maps_names(weights):
            raise OptionError(
                f"weights={type(weights).__name__} must map names to parameters; give a dict such as "
                "{'fc.weight': model.fc.weight}, or dict(model.named_parameters())"
            )
        else:
            check_holds(optimizer, weights)
        self.model, self.optimizer = model, optimizer
        self.steps = 0
        self._hooks: list[RemovableHandle] = []

    def attach(self) -> Self:
        """Hook the method to its optimizer, and return it."""
        self._hooks += attach_optimizer_hooks(self.optimizer, self._run_before_step, self._run_after_step)
        return self

    def release(self) -> None:
        """Remove the hooks from the optimizer; weights and masks stay as they are."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def before_step(self) -> None:  # noqa: B027 (most methods do not read gradients)
        """Read or change the gradients of a step, before the optimizer uses them."""

    @abstractmethod
    def after_step(self) -> None:
        """Change the weights after the optimizer has moved them, without gradients; `steps` counts this step."""

    def finite_gradient(self, name: str, weight: Tensor) -> Tensor | None:
        """Return the gradient of a weight, None where it has none.

        Args:
            name: the name to show in a message.
            weight: the parameter.

        Raises:
            DataError: The gradient holds NaN or infinite values.
        """
        if weight.grad is not None:
            check_finite(weight.grad, self.steps + 1, name)
        return weight.grad

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that is needed to resume, beside the states of the model and the optimizer."""
        state = {"steps": self.steps, **self.method_state()}
        copied: dict[str, Any] = pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), state)
        return copied

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state that `state_dict` returned. The state is checked whole before anything is changed.

        Raises:
            SurgeryError: The state belongs to another method, to another network or to other options.
        """
        remedy = "give what state_dict() of the same method returned"
        if not isinstance(state, Mapping) or "steps" not in state:
            raise SurgeryError(f"this is no state of {type(self).__name__}, as it has no number of steps; {remedy}")
        try:
            self.check_method_state(state)
        except KeyError as failure:
            raise SurgeryError(f"the state of {type(self).__name__} has no entry {failure}; {remedy}") from failure
        copied = pytree.tree_map_only(Tensor, torch.clone, dict(state))
        with torch.no_grad():
            self.load_method_state(copied)
        self.steps = int(state["steps"])

    def method_state(self) -> dict[str, Any]:
        """Return the method's own state: dicts, lists, tensors and plain values."""
        return {}

    def check_method_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (no state, nothing to check)
        """Check that a state belongs to this network.

        Raises:
            SurgeryError: It does not.
        """

    def load_method_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (no state, nothing to load)
        """Take over a checked state, whose tensors belong to the method from now on."""

    def _run_before_step(self) -> None:
        if not is_skipped(self.optimizer):
            self.before_step()

    def _run_after_step(self) -> None:
        if is_skipped(self.optimizer):
            return
        self.steps += 1
        with torch.no_grad():
            self.after_step()


def _maps_names(weights: object) -> bool:
    return isinstance(weights, Mapping) and all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    )
