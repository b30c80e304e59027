"""The device and type of a model, and the error for inputs that it rejects."""

import inspect
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.data.next_tokens import TOKENS
from secateur.data.padding import MASK
from secateur.errors import DataError
from secateur.utils.failure_text import failure_text


def input_error(title: str, batch: Batch, failure: Exception, dtype: torch.dtype | None = None) -> DataError:
    """Build the error for inputs that a model rejects, with the model's own message.

    Args:
        title: the model's class.
        batch: the inputs.
        failure: the model's own error.
        dtype: the type of its floating-point parameters, if it has any.
    """
    shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in batch.tensors)
    other_types = [tensor.dtype for tensor in batch.tensors if tensor.is_floating_point() and tensor.dtype != dtype]
    integer_types = [tensor.dtype for tensor in batch.tensors if not tensor.is_floating_point()]
    advice = ""
    if dtype is not None and (other_types or (integer_types and "type" in str(failure))):
        data_type = (other_types or integer_types)[0]
        advice = f"\nThe model's parameters are {dtype}; data of {data_type} can be given as x.to({dtype})"
    return DataError(f"{title} refuses inputs {shapes}: {failure_text(failure)}{advice}")


def with_accepted_names(model: nn.Module, batches: Sequence[Batch]) -> list[Batch]:
    """Return batches of tokens for a model: by position where its forward does not have their usual name."""
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    return list(batches) if takes_any or TOKENS in parameters else [with_tokens_by_position(batch) for batch in batches]


def with_tokens_by_position(batch: Batch) -> Batch:
    """Return a batch whose tokens, named as the transformers library does, are the first input by position.

    An `attention_mask` without padding is left out. Batches with further inputs stay as they are.
    """
    others = {name: value for name, value in batch.kwargs.items() if name != TOKENS}
    mask = others.pop(MASK, None)
    is_padded = isinstance(mask, Tensor) and not bool(mask.bool().all())
    if TOKENS not in batch.kwargs or batch.args or others or is_padded:
        return batch
    return replace(batch, args=(batch.kwargs[TOKENS],), kwargs={})


def floating_type(model: nn.Module) -> torch.dtype | None:
    """Return the dtype of a model's first floating-point parameter, or None."""
    return next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), None)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer, the CPU if it has none."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")
