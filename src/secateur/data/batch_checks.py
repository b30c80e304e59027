"""Checks of data and of single batches: inputs with values, dense and finite, and at least one example."""

from collections.abc import Callable, Mapping
from os import PathLike

import torch
from torch import Tensor

from secateur.data.batch import Batch
from secateur.data.forms import ExampleList
from secateur.errors import DataError

LOADER_METHODS = ("get_train_dataloader", "train_dataloader")  # of a Trainer; of a module of Lightning
WITHOUT_TENSORS: Mapping[str, str] = {
    "str": "a tokenizer makes tensors of texts: secateur.text_batches(tokenizer, texts)",
    "Image": "make tensors of images as for the training, such as torchvision.transforms.functional.to_tensor(image)",
    "int": "numbers alone are a shape or a column; give examples with values, such as torch.stack(examples)",
}
"""What to give in place of inputs of a class, by its name."""

NOT_DENSE: Mapping[str, Callable[[Tensor], bool]] = {
    "tensor on the meta device, which holds no values; give real examples": lambda tensor: tensor.is_meta,
    "nested tensor, which has no one shape; pad it (tensor.to_padded_tensor)": lambda tensor: tensor.is_nested,
    "quantized tensor; give tensor.dequantize()": lambda tensor: tensor.is_quantized,
    "sparse tensor; give tensor.to_dense()": lambda tensor: tensor.layout != torch.strided,
}


def advice_on_data(data: object) -> str:
    """Return what to give in place of an object that gives no batches, in words."""
    if isinstance(data, str | bytes | PathLike):
        return "read the file first: a name holds no examples"
    if hasattr(data, "to_numpy"):
        return "give its numbers as a tensor, torch.tensor(data.to_numpy(), dtype=torch.float32), without targets"
    loader = next((f"its {name}()" for name in LOADER_METHODS if hasattr(data, name)), "a DataLoader or a list")
    return f"give an iterable of batches, such as {loader}"


def check_batch(batch: Batch, number: int) -> None:
    """Check the inputs of a batch.

    Args:
        batch: the batch.
        number: its position in the data.

    Raises:
        DataError: it holds no tensors or no example, tensors that are not dense, NaN or infinity.
    """
    if not batch.tensors:
        values = [*batch.args, *batch.kwargs.values()]
        leaves = [leaf for value in values for leaf in (value if isinstance(value, ExampleList) else [value])]
        kinds = list(dict.fromkeys(type(leaf).__name__ for leaf in leaves))
        advice = next((f"; {WITHOUT_TENSORS[kind]}" for kind in kinds if kind in WITHOUT_TENSORS), "")
        raise DataError(f"batch {number} holds no tensors, but {', '.join(kinds) or 'nothing'}{advice}")
    if batch.size == 0:
        raise DataError(f"batch {number} is empty: its first input has shape {tuple(batch.tensors[0].shape)}")
    for tensor in batch.tensors:
        kind = next((kind for kind, holds in NOT_DENSE.items() if holds(tensor)), None)
        if kind is not None:
            raise DataError(f"an input of batch {number} is a {kind}")
    for tensor in batch.tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(
                f"batch {number} has NaN or infinity in an input of shape {tuple(tensor.shape)}; mend the data"
            )
