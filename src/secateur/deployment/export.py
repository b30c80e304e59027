"""`export`: a model as an ONNX file or as a program of torch.export, checked against the module."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.data.batch import Batch, on_device
from secateur.data.conversion import example_batches
from secateur.data.model_inputs import device_of, floating_type, with_accepted_names
from secateur.deployment.exported_file import ExportedFile
from secateur.deployment.onnx_conversion import BATCH, OnnxSession, check_onnx_installed, write_onnx
from secateur.deployment.output_comparison import compared_outputs, tensors_in
from secateur.entry import entry_point
from secateur.errors import OptionError, StorageError
from secateur.evaluation.runtimes import repeatable_call
from secateur.evaluation.timing import interleaved_times
from secateur.files import Writer, file_digest, read_program, write_files
from secateur.graph.contexts import isolated_evaluation
from secateur.graph.export import export_first
from secateur.graph.model_calls import cache_disabled
from secateur.graph.program import Program

ONNX, PROGRAM = ".onnx", ".pt2"
LOWEST_OPSET = 18


@entry_point
def export(model: nn.Module, path: str | Path, example_inputs: Any, *, opset: int | None = None) -> ExportedFile:
    """Write a model in a format of other runtimes, and check the file against the model.

    The batch size may vary in the file, if the model's code allows it. The file is run on the example, and on a batch
    of another size; its outputs must be those of the model.

    Args:
        model: any model, cut or not; it is exported in evaluation mode, and left as it is.
        path: the file, by its ending: `.onnx` by torch's exporter for onnxruntime, TensorRT, OpenVINO and others
            (`pip install 'secateur[onnx]'`), or `.pt2` by `torch.export`.
        example_inputs: as `trace` takes them.
        opset: the version of the operators of ONNX, from 18 up; by default that of torch's exporter.

    Returns:
        The facts of the file: its format, size, inputs and outputs, the largest difference from the model, and the time
        of a batch. Print it.

    Raises:
        OptionError: the file has another ending, or a package is missing.
        TraceError: the model can't be exported, or the runtime refuses the file or computes something else.
        StorageError: the file can't be written. A file that was there before is as it was.

    Examples:
        >>> import tempfile, torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = sc.export(model, f"{folder}/model.pt2", torch.randn(2, 4))
        >>> file.inputs, file.batch_sizes
        ({'input': '(batch, 4)'}, (2, 3))
    """
    examples = example_batches(example_inputs, device_of(model), floating_type(model), model)
    examples = with_accepted_names(model, examples)
    return export_to(model, Path(path), examples, opset)


def export_to(model: nn.Module, path: Path, examples: Sequence[Batch], opset: int | None = None) -> ExportedFile:
    """Write a model to a file, as `export` does.

    Args:
        model: the model.
        path: the file.
        examples: its inputs: the first that can be exported is, and the last is run.
        opset: the version of the operators of ONNX.

    Raises:
        SecateurError: as `export` raises.
    """
    check_export_path(path, opset)
    placed_examples = [on_device(example, device_of(model)) for example in examples]
    with isolated_evaluation(model), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        program, accepted_example = export_first(model, placed_examples)
        batch = accepted_example if program.batched is None else placed_examples[-1]
        facts = FORMATS[path.suffix](model, program, batch, Path(folder) / path.name, opset)
        sources = sorted(Path(folder).iterdir())
        write_files(path.parent, {source.name: _copy_of(source) for source in sources})
        size = sum(source.stat().st_size for source in sources)
    return ExportedFile(path, bytes=size, **facts)


def check_export_path(path: Path | None, opset: int | None = None) -> None:
    """Check the ending of a file and the version of the operators; None stands for no file.

    Raises:
        OptionError: there is no such format, or it has no such version, or a package is missing.
    """
    if path is None:
        return
    if path.suffix not in FORMATS:
        raise OptionError(f"{path} ends in no format; give a file that ends in {' or '.join(FORMATS)}")
    if opset is not None and path.suffix != ONNX:
        raise OptionError(f"opset={opset} is for {ONNX} files, and {path} is none")
    if opset is not None and opset < LOWEST_OPSET:
        raise OptionError(f"opset={opset} is too old for torch's exporter; give {LOWEST_OPSET} or more")
    if path.suffix == ONNX:
        check_onnx_installed()


def _copy_of(source: Path) -> Writer:
    def write(path: Path) -> str:
        shutil.copyfile(source, path)
        return file_digest(path)

    return write


def _onnx_file(model: nn.Module, program: Program, batch: Batch, path: Path, opset: int | None) -> dict[str, Any]:
    """Write an ONNX file, and return its facts."""
    version = write_onnx(model, program.exported, program.batched, path, opset)
    session, keywords = OnnxSession(path), cache_disabled(model, batch)

    def run(batch: Batch) -> list[Tensor]:
        return session.run(session.feed(batch, keywords))

    feed = session.feed(batch, keywords)
    return {
        "format": f"ONNX, opset {version}",
        "inputs": session.inputs,
        "outputs": session.outputs,
        **compared_outputs(model, program, batch, run, "onnxruntime"),
        "milliseconds": _milliseconds(model, batch, "onnxruntime", lambda: session.run(feed)),
    }


def _program_file(model: nn.Module, program: Program, batch: Batch, path: Path, opset: int | None) -> dict[str, Any]:
    """Write a program of torch.export, and return its facts."""
    try:
        torch.export.save(program.exported, path)
    except RuntimeError as failure:  # how torch reports a full disk
        raise StorageError(f"{path} can't be written: {failure}") from failure
    module, keywords = read_program(path), cache_disabled(model, batch)

    def run(batch: Batch) -> list[Tensor]:
        batch_copy = batch.with_copied_inputs()
        return tensors_in(module(*batch_copy.args, **batch_copy.kwargs, **keywords))

    return {
        "format": f"program of torch.export {torch.__version__}",
        "inputs": {node.name: _shape_text(node, program) for node in program.inputs},
        "outputs": {node.name: _shape_text(node, program) for node in program.output_nodes},
        **compared_outputs(model, program, batch, run, "the exported program"),
        "milliseconds": _milliseconds(model, batch, "the exported program", lambda: run(batch)),
    }


FORMATS: Mapping[str, Callable[[nn.Module, Program, Batch, Path, int | None], dict[str, Any]]] = {
    ONNX: _onnx_file,
    PROGRAM: _program_file,
}


def _shape_text(node: Node, program: Program) -> str:
    value = node.meta.get("val")
    lengths = [BATCH if str(length) == program.batched else str(length) for length in getattr(value, "shape", ())]
    return f"({', '.join(lengths)})" if isinstance(value, Tensor) else str(value)


def _milliseconds(model: nn.Module, batch: Batch, runtime: str, call: Callable[[], Any]) -> dict[str, float]:
    """Return the median milliseconds of a batch in a runtime and in torch, run in turn."""
    times = interleaved_times([repeatable_call(model, batch), call])
    return {name: float(np.median(values)) for name, values in zip(("torch", runtime), times, strict=True)}
