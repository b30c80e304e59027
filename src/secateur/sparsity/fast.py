"""Fast networks read again: the model that was saved, each layer with the kernel that it had."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.entry import entry_point
from secateur.errors import StorageError
from secateur.evaluation.kernel_selection import DENSE, MakeKernel, replace_module
from secateur.files import read_record, reading
from secateur.sparsity.packed_layers.block_kernels import packed_kernels
from secateur.sparsity.packed_layers.gathered_conv import GATHERED, GatheredConv2d
from secateur.sparsity.packed_layers.unified_kernels import unified_kernels
from secateur.sparsity.pivoting.saved import PIVOT, SavedPivot, SavedPivot1, check_pivot, read_pivot
from secateur.sparsity.saved_kernels import KERNELS_FILE, SavedKernels
from secateur.surgery.prepared_load import check_companion, prepare_load

WITHOUT_NUMBA = "tiles"  # stands in for compiled loops where numba is not installed


@entry_point
def load_fast(model: nn.Module, folder: str | Path) -> nn.Module:
    """Give a fresh dense model the weights of a saved sparse result, and kernels for what is left.

    Nothing that is read is code, and nothing is timed: each layer gets the kernel that was fastest where the result was
    saved.

    Args:
        model: a fresh model of the class that was pruned, made with the same arguments; it is changed in place.
        folder: where a result of `secateur.sparsity` was saved, or its command wrote.

    Returns:
        The model, in evaluation mode. Layers with kernels are modules of other classes; `secateur.load` gives the model
        with its zeros, of its own classes alone.

    Raises:
        StorageError: a file is missing, cut off, altered or of another network; the model is as it was.

    Examples:
        >>> import tempfile, torch
        >>> from secateur.sparsity import pivot
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
        >>> result = pivot(make(), torch.randn(8, 64), 0.5, shape=(8, 8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.save(folder)
        ...     fast = load_fast(make(), folder)
        >>> x = torch.randn(8, 64)
        >>> torch.allclose(fast(x), result.model.eval()(x), atol=1e-5)
        True
    """
    folder = Path(folder)
    prepared_load = prepare_load(model, folder)
    with reading(folder) as path_of:
        record = read_record(path_of(KERNELS_FILE), (SavedKernels,))
        check_companion(folder, path_of, KERNELS_FILE)
        pivot = read_pivot(path_of(PIVOT)) if path_of(PIVOT).exists() else None
        if pivot is not None:
            check_companion(folder, path_of, PIVOT)
    try:
        if pivot is not None:
            check_pivot(pivot, prepared_load.tensors)
        modules = _modules_of(prepared_load.rebuilt, record.kernels)
        makers = {name: _maker(name, kernel, modules[name], record, pivot) for name, kernel in record.kernels.items()}
    except StorageError as failure:
        raise StorageError(
            f"{folder / KERNELS_FILE} does not belong to this {type(model).__name__}: {failure}"
        ) from failure
    rebuilt_model = prepared_load.commit()
    for name, make in makers.items():
        if make is not None:
            path = name.rpartition(".")[0]
            replace_module(rebuilt_model, path, _make_kernel(make, rebuilt_model.get_submodule(path)))
    return rebuilt_model.eval()


def _modules_of(model: nn.Module, kernels: Mapping[str, str]) -> dict[str, nn.Module]:
    """Return the module of each weight.

    Raises:
        StorageError: the model has no such weight.
    """
    parameters = dict(model.named_parameters())
    missing = next((name for name in kernels if name not in parameters), None)
    if missing is not None:
        raise StorageError(f"it has no weight {missing!r}")
    return {name: model.get_submodule(name.rpartition(".")[0]) for name in kernels}


Maker = Callable[[nn.Module], nn.Module]


def _maker(
    name: str, kernel: str, module: nn.Module, record: SavedKernels, pivot: SavedPivot | SavedPivot1 | None
) -> Maker | None:
    """Return the constructor of a layer's kernel, None where the layer runs unchanged.

    Raises:
        StorageError: the layer can have no such kernel.
    """
    if kernel == DENSE:
        return None
    makers_by_kernel: dict[str, MakeKernel] = {GATHERED: GatheredConv2d} if type(module) is nn.Conv2d else {}
    if pivot is not None and name in pivot.layers:
        layer = pivot.layers[name]
        gather: Tensor | None = None if layer.gather is None else torch.tensor(layer.gather)
        makers_by_kernel |= packed_kernels(module, torch.tensor(layer.blocks, dtype=torch.bool), pivot.shape, gather)
    if name in record.blocks:
        makers_by_kernel |= unified_kernels(nn.ModuleDict({"layer": module}), {"layer.weight": record.blocks[name]})[
            "layer.weight"
        ]
    if kernel not in makers_by_kernel:
        raise StorageError(f"{name} can have no kernel {kernel!r}; known are {', '.join(makers_by_kernel) or 'none'}")
    return lambda dense: _or_without_numba(makers_by_kernel, kernel, dense)


def _or_without_numba(makers_by_kernel: Mapping[str, MakeKernel], kernel: str, dense: nn.Module) -> nn.Module:
    try:
        return makers_by_kernel[kernel](dense)
    except NotImplementedError:
        if WITHOUT_NUMBA not in makers_by_kernel:
            raise
        return makers_by_kernel[WITHOUT_NUMBA](dense)


def _make_kernel(make: Maker, dense: nn.Module) -> nn.Module:
    with torch.no_grad():
        return make(dense)
