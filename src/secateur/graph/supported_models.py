"""Kinds of models whose parameters can't be cut, with the remedy for each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


@dataclass(frozen=True)
class UnsupportedKind:
    """A kind of module that can't be cut.

    Args:
        matches: whether a module, by itself and without its children, is of this kind.
        message: what the module is, and the remedy; follows its path and class.
    """

    matches: Callable[[nn.Module], bool]
    message: str


def unsupported_reason(model: nn.Module) -> str | None:
    """Return the reason why a model can't be cut, with the module responsible; None if it can."""
    for path, module in model.named_modules():
        for kind in UNSUPPORTED:
            if kind.matches(module):
                location = f"{path} ({type(module).__name__})" if path else type(module).__name__
                return f"{location} {kind.message}"
    return None


def _direct_tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _is_lazy(module: nn.Module) -> bool:
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return True
    tensors = (*module._parameters.values(), *module._buffers.values())
    return any(tensor is not None and is_lazy(tensor) for tensor in tensors)


def _is_offloaded(module: nn.Module) -> bool:
    return hasattr(module, "_hf_hook") and _is_meta(module)


def _is_meta(module: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in _direct_tensors(module))


def _is_quantized(module: nn.Module) -> bool:
    is_packed = ".quantized." in type(module).__module__ or hasattr(module, "_packed_params")
    kinds = {type(parameter).__name__ for parameter in module.parameters(recurse=False)}
    return is_packed or bool(kinds & BITSANDBYTES) or any(tensor.is_quantized for tensor in _direct_tensors(module))


def _is_fake_quantized(module: nn.Module) -> bool:
    return isinstance(module, torch.ao.quantization.FakeQuantizeBase | torch.ao.quantization.ObserverBase)


def _is_sharded(module: nn.Module) -> bool:
    return type(module).__name__ == "FullyShardedDataParallel" or any(
        type(tensor).__name__ == "DTensor" for tensor in _direct_tensors(module)
    )


def _has_tensor_subclass(module: nn.Module) -> bool:
    return any(is_traceable_wrapper_subclass(tensor) for tensor in _direct_tensors(module))


BITSANDBYTES = {"Params4bit", "Int8Params"}
# The first kind that fits counts.
UNSUPPORTED = (
    UnsupportedKind(
        _is_lazy,
        "is a lazy module that has seen no data: its parameters are uninitialized. Run the model on one batch first: "
        "model(*inputs)",
    ),
    UnsupportedKind(
        lambda module: isinstance(module, torch.jit.ScriptModule),
        "is TorchScript, whose code can't be exported. Give the Python module that it was scripted or traced from",
    ),
    UnsupportedKind(
        _is_offloaded,
        "is offloaded: its parameters are not in memory. Load the model without device_map and offload_folder, or call "
        "accelerate.hooks.remove_hook_from_module(model, recurse=True)",
    ),
    UnsupportedKind(
        _is_meta,
        "is on the meta device: its parameters have no values. Call model.to_empty(device='cpu') and load a checkpoint",
    ),
    UnsupportedKind(
        lambda module: any(isinstance(tensor, FakeTensor) for tensor in _direct_tensors(module)),
        "has fake tensors: its parameters have shapes and no values. Make the model outside of FakeTensorMode",
    ),
    UnsupportedKind(
        _is_quantized,
        "is quantized: its weights are packed integers, which can't be cut. Prune the floating-point model, and "
        "quantize the small one",
    ),
    UnsupportedKind(
        _is_fake_quantized,
        "is an observer of quantization: its scales belong to the dense weights. Prune before "
        "torch.ao.quantization.prepare or prepare_qat, and prepare the small model",
    ),
    UnsupportedKind(
        _is_sharded,
        "is sharded over processes: no process holds whole weights. Load the full state dict into the plain module in "
        "every process, prune it within secateur.shared_processes(), and shard the small model",
    ),
    UnsupportedKind(
        _has_tensor_subclass,
        "has parameters of a tensor subclass that wraps other tensors, which can't be cut. Prune the model with plain "
        "tensors, and convert the small one",
    ),
)
