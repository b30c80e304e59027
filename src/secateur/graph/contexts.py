"""Contexts for runs of a model: evaluation mode, restored buffers and parameters, seeded random numbers."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules import transformer

from secateur.data.batch import Batch
from secateur.data.model_inputs import floating_type, input_error
from secateur.errors import SecateurError
from secateur.graph.attribute_snapshots import attributes_restored
from secateur.graph.model_calls import call_model
from secateur.graph.random_draws import seeded_generators
from secateur.utils.mapped_tensors import TensorRoom


@contextmanager
def evaluation_mode(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Set every module to evaluation mode, or to training mode; restore each flag on leaving."""
    flags = {module: module.training for module in model.modules()}
    try:
        for module in flags:
            module.training = training
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def training_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Set every module to training mode; restore each flag on leaving."""
    return evaluation_mode(model, training=True)


@contextmanager
def isolated_evaluation(model: nn.Module, parameters: bool = True) -> Iterator[None]:
    """Set evaluation mode, without gradients; undo changes that the model's own code makes to itself on leaving.

    Args:
        model: the model.
        parameters: whether its code may write to parameters, which then are copied for the time being.
    """
    own_parameters = parameters_kept(model) if parameters else nullcontext()
    with evaluation_mode(model), attributes_restored(model), buffers_kept(model), own_parameters, torch.no_grad():
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore the memory and the values of buffers, and of tensors that are plain attributes, on leaving.

    The tensors themselves are restored, and not what the model's code has put in their place.
    """
    attributes = (value for module in model.modules() for value in vars(module).values())
    with _tensors_kept([*model.buffers(), *(value for value in attributes if isinstance(value, Tensor))]):
        yield


@contextmanager
def parameters_kept(model: nn.Module) -> Iterator[None]:
    """Restore the memory and the values of parameters on leaving; copies of large models are in temporary files."""
    with _tensors_kept(model.parameters()):
        yield


@contextmanager
def _tensors_kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore the memory and the values of tensors on leaving; those with the same values are not written to."""
    room = TensorRoom()
    saved_tensors = [
        (tensor, tensor.data, _copy_tensor(tensor.detach(), room)) for tensor in tensors if not tensor.is_meta
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, memory, values in saved_tensors:
                is_dense = _is_dense(memory)
                if is_dense and (tensor.data.data_ptr() != memory.data_ptr() or tensor.shape != memory.shape):
                    tensor.data = memory
                if not is_dense:
                    memory.copy_(values)
                elif not torch.equal(memory, values):
                    _without_repeats(memory).copy_(_without_repeats(values, memory))


def _copy_tensor(tensor: Tensor, room: TensorRoom) -> Tensor:
    return room.copy(tensor) if _is_dense(tensor) else tensor.clone()


def _is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor has one memory with strides: it is neither sparse nor nested."""
    return tensor.layout == torch.strided and not tensor.is_nested


def _without_repeats(tensor: Tensor, expanded_tensor: Tensor | None = None) -> Tensor:
    """Return the first entry alone along the axes along which a tensor, or another of its shape, is expanded."""
    for axis, stride in enumerate((tensor if expanded_tensor is None else expanded_tensor).stride()):
        if stride == 0 and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def run_module(model: nn.Module, batch: Batch) -> Any:
    """Compute a model's own output in evaluation mode.

    Raises:
        DataError: it refuses the inputs; its own error is shown.
    """
    try:
        with evaluation_mode(model):
            return call_model(model, batch)
    except SecateurError:
        raise
    except Exception as failure:
        raise input_error(type(model).__name__, batch, failure, floating_type(model)) from failure


def run_seeded(model: nn.Module, batch: Batch, seed: int = 0) -> Any:
    """Compute a model's own output with seeded random numbers, comparable with another model's.

    Raises:
        DataError: it refuses the inputs; its own error is shown.
    """
    with seeded_generators(seed):
        return run_module(model, batch)


@contextmanager
def fused_layers_disabled() -> Iterator[None]:
    """Disable torch's fused kernels for whole transformer layers, which hide their operators.

    Nor does `nn.Transformer` look whether a mask happens to be causal, which only serves to choose a kernel: what
    depends on the values in a tensor can't be exported.
    """
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with patch.object(transformer, "_detect_is_causal_mask", lambda mask, is_causal, size: bool(is_causal)):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
