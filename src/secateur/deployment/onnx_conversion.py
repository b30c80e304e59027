"""Conversion of exported programs to ONNX by torch's exporter, and runs of ONNX files by onnxruntime."""

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from secateur.data.batch import Batch
from secateur.errors import OptionError, TraceError
from secateur.evaluation.onnx_operators import onnx_operators_read_once
from secateur.evaluation.runtimes import EXTRAS, new_session
from secateur.graph.torch_logs import torch_logs_silenced

BATCH = "batch"


def check_onnx_installed() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        OptionError: one of them is missing.
    """
    for name in EXTRAS:
        try:
            importlib.import_module(name)
        except ImportError as failure:
            raise OptionError(
                f"an ONNX file needs the package {name}, which can't be imported ({failure}); run "
                "pip install 'secateur[onnx]'"
            ) from failure


def write_onnx(model: nn.Module, exported: ExportedProgram, batched: str | None, path: Path, opset: int | None) -> int:
    """Write a program as an ONNX file; its weights beside it, in NAME.data, where they exceed 2 GB.

    Args:
        model: the module that was exported, for messages.
        exported: its program.
        batched: the symbol of the batch size, None where the size is fixed.
        path: the file.
        opset: the version of the operators; None for that of torch's exporter.

    Returns:
        The version of the operators.

    Raises:
        TraceError: torch's exporter refuses the program.
    """
    try:
        with torch_logs_silenced(), onnx_operators_read_once():
            onnx_program: Any = torch.onnx.export(exported, dynamo=True, verbose=False, opset_version=opset)
        if batched is not None:
            _name_axis(onnx_program.model, batched, BATCH)
        onnx_program.save(str(path))
    except Exception as failure:  # torch's exporter raises any type
        message = str(failure).strip() or "no reason is given"
        raise TraceError(
            f"torch.onnx can't express {type(model).__name__} ({type(failure).__name__}: "
            f"{message.splitlines()[0][:300]}); another opset= may help, or a file of torch.export: small.pt2"
        ) from failure
    return int(onnx_program.model.opset_imports[""])


def _name_axis(graph_model: Any, symbol: str, name: str) -> None:
    """Give an axis that may vary a name in place of the symbol of the export."""
    onnx_ir = importlib.import_module("onnx_ir")
    graph = graph_model.graph
    values = [*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)]
    word = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in values:
        if value.shape is not None and any(word.search(str(length)) for length in value.shape):
            value.shape = onnx_ir.Shape(
                [length if isinstance(length, int) else word.sub(name, str(length.value)) for length in value.shape]
            )


class OnnxSession:
    """An ONNX file in onnxruntime, on the processor.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._session = new_session(str(path))
        except Exception as failure:  # onnxruntime has its own types
            message = str(failure).strip().splitlines()[0][:300]
            raise TraceError(
                f"onnxruntime refuses the file ({message}); a model of lower precision may have no kernels on the "
                "processor: export model.float()"
            ) from failure

    @property
    def inputs(self) -> dict[str, str]:
        """The shapes of the inputs by name."""
        return _shapes(self._session.get_inputs())

    @property
    def outputs(self) -> dict[str, str]:
        """The shapes of the outputs by name."""
        return _shapes(self._session.get_outputs())

    def feed(self, batch: Batch, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arrays of a batch by the names of the inputs.

        Args:
            batch: the batch.
            keywords: further keywords of the model.
        """
        names = list(self.inputs)
        tensors = [leaf for leaf in tree_leaves((batch.args, {**batch.kwargs, **keywords})) if isinstance(leaf, Tensor)]
        arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
        return dict(zip(names, arrays, strict=True))

    def run(self, feed: Mapping[str, Any]) -> list[Tensor]:
        """Run the file on arrays by the names of the inputs."""
        return [torch.from_numpy(array) for array in self._session.run(None, dict(feed))]


def _shapes(values: Sequence[Any]) -> dict[str, str]:
    return {value.name: f"({', '.join(map(str, value.shape))})" for value in values}
