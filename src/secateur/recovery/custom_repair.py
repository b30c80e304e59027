"""Repairs that are functions of the user's own."""

import inspect
from collections.abc import Callable, Sequence

from torch import Size, nn

from secateur.data.batch import Batch
from secateur.errors import OptionError, SurgeryError
from secateur.graph.model_copies import copy_model
from secateur.recovery.cut_tensors import tensors_by_name
from secateur.recovery.training_task import TrainingFunction, TrainingTask
from secateur.utils.default_device import on_callers_device

Trainer = Callable[[nn.Module, nn.Module, Sequence[Batch]], object]


def check_three_arguments(name: str, function: Callable[..., object]) -> None:
    """Check that a repair can be called with the small model, the dense model and the batches.

    Raises:
        OptionError: it can't be.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function of an extension module has none
        return
    try:
        signature.bind(None, None, None)
    except TypeError as failure:
        raise OptionError(
            f"the repair {name}{signature} can't be called with three arguments: {failure}; give a function of the "
            "small model, the dense model and the batches"
        ) from failure


def custom_training(name: str, function: Trainer) -> TrainingFunction:
    """Return a repair that calls a function in evaluation mode, with a copy of the dense model.

    It raises a SurgeryError if the function leaves tensors of other names or shapes, or returns another model.

    Args:
        name: the function's name, for messages.
        function: it changes tensors of the small model in place.
    """

    def train(task: TrainingTask) -> None:
        """Run the user's function."""
        shapes = _tensor_shapes(task.small)
        small, dense = task.small.eval(), copy_model(task.dense, {}).eval()
        result = on_callers_device(function)(small, dense, task.microbatches)
        if isinstance(result, nn.Module) and result is not task.small:
            raise SurgeryError(
                f"the repair {name} returned another model, which is not used; change the small model that it takes in "
                "place, for example by small.load_state_dict(other.state_dict())"
            )
        changed_shapes = _tensor_shapes(task.small)
        for tensor in sorted(shapes.keys() | changed_shapes.keys()):
            before, after = shapes.get(tensor), changed_shapes.get(tensor)
            if before != after:
                raise SurgeryError(
                    f"the repair {name} changed {tensor} of the small model from {_output_shape_text(before)} to "
                    f"{_output_shape_text(after)}; change values in place, and neither shapes nor modules"
                )

    return train


def _tensor_shapes(model: nn.Module) -> dict[str, Size]:
    return {name: tensor.shape for name, tensor in tensors_by_name(model).items()}


def _output_shape_text(shape: Size | None) -> str:
    return "no tensor" if shape is None else f"shape {tuple(shape)}"
