"""Runtimes in which networks are timed: torch as it is, and onnxruntime, which is optional."""

import importlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.data.batch import Batch
from secateur.errors import BudgetError, OptionError
from secateur.evaluation.onnx_operators import onnx_operators_read_once
from secateur.graph.model_calls import cache_disabled
from secateur.graph.torch_logs import torch_logs_silenced
from secateur.utils.default_device import on_callers_device

EAGER, ONNXRUNTIME = "eager", "onnxruntime"
EXTRAS = ("onnxruntime", "onnx", "onnxscript")
Call = Callable[[], Any]


def runtime_of(target: str) -> str:
    """Return the runtime in which networks for a target are timed."""
    return ONNXRUNTIME if target == ONNXRUNTIME else EAGER


def is_installed(runtime: str) -> bool:
    """Return True if all packages that a runtime needs can be imported."""
    try:
        check_runtime(runtime)
    except OptionError:
        return False
    return True


def check_runtime(runtime: str) -> None:
    """Check that a runtime can be used.

    Raises:
        OptionError: a package that the runtime needs is not installed.
    """
    for name in EXTRAS if runtime == ONNXRUNTIME else ():
        try:
            importlib.import_module(name)
        except ImportError as failure:
            raise OptionError(
                f"target='onnxruntime' is timed by onnxruntime, which needs the package {name} ({failure}); run "
                "pip install 'secateur[onnxruntime]', or give target='cpu' to time torch's own kernels"
            ) from failure


def runtime_version(runtime: str) -> str:
    """Return the release of a runtime, on which times depend."""
    return str(importlib.import_module(ONNXRUNTIME).__version__) if runtime == ONNXRUNTIME else torch.__version__


def repeatable_call(model: nn.Module, batch: Batch, runtime: str = EAGER) -> Call:
    """Return a model's call on a batch, without anything else that takes time.

    Args:
        model: in evaluation mode.
        batch: its inputs, which the call may write to a copy of.
        runtime: torch as it is, or onnxruntime on the processor, on as many threads as torch uses now.

    Raises:
        OptionError: the runtime is not installed.
        BudgetError: the model can't be exported for it, or it refuses the exported model.

    Examples:
        >>> repeatable_call(torch.nn.Linear(2, 3).eval(), Batch((torch.ones(1, 2),), {}))().shape
        torch.Size([1, 3])
    """
    return CALLS[runtime](model, batch.with_copied_inputs())


def _eager_call(model: nn.Module, batch: Batch) -> Call:
    keywords = {**batch.kwargs, **cache_disabled(model, batch)}
    forward = on_callers_device(model)
    return lambda: forward(*batch.args, **keywords)


def _onnxruntime_call(model: nn.Module, batch: Batch) -> Call:
    return session_call(export_onnx(model, batch))


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model in the form that onnxruntime runs.

    Args:
        proto: the model as the onnx package holds it.
        content: the same as the bytes of a file.
        inputs: arrays by the names of its inputs.
    """

    proto: Any
    content: bytes
    inputs: Mapping[str, Any]


def export_onnx(model: nn.Module, batch: Batch) -> OnnxModel:
    """Export a model in evaluation mode for onnxruntime, and try it.

    Raises:
        OptionError: onnxruntime is not installed.
        BudgetError: the model can't be exported, or onnxruntime refuses what was.
    """
    check_runtime(ONNXRUNTIME)
    keywords = {**batch.kwargs, **cache_disabled(model, batch)}
    try:
        with torch_logs_silenced(), onnx_operators_read_once():
            program: Any = torch.onnx.export(model, batch.args, kwargs=keywords, dynamo=True, verbose=False)
            proto = program.model_proto
            content = proto.SerializeToString()
        names = [argument.name for argument in new_session(content).get_inputs()]
        onnx_model = OnnxModel(proto, content, _named_inputs(names, batch.args, keywords))
        session_call(onnx_model)()
    except Exception as failure:
        message = str(failure).strip() or "no reason is given"
        raise BudgetError(
            f"{type(model).__name__} can't be timed by onnxruntime ({type(failure).__name__}: "
            f"{message.splitlines()[0][:200]}); give target='cpu' to time torch's own kernels"
        ) from failure
    return onnx_model


def session_call(onnx_model: OnnxModel) -> Call:
    """Return the call that runs an exported model, on as many threads as torch uses now."""
    session = new_session(onnx_model.content)
    return lambda: session.run(None, onnx_model.inputs)


def new_session(model: bytes | str, **settings: Any) -> Any:
    """Create an onnxruntime session on the processor, on as many threads as torch uses now.

    Args:
        model: the content of an ONNX file, or its path.
        settings: further settings of `onnxruntime.SessionOptions`, by name.
    """
    onnxruntime: Any = importlib.import_module(ONNXRUNTIME)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3  # errors alone
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its threads leave the cores to other runs
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _named_inputs(names: Sequence[str], args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by the names of a session's inputs: keywords by their own, other tensors in their order."""
    named_inputs = {name: value for name, value in keywords.items() if name in names and isinstance(value, Tensor)}
    unnamed_keywords = {name: value for name, value in keywords.items() if name not in named_inputs}
    other_inputs = [leaf for leaf in tree_leaves((tuple(args), unnamed_keywords)) if isinstance(leaf, Tensor)]
    unnamed_inputs = dict(zip((name for name in names if name not in named_inputs), other_inputs, strict=True))
    return {
        name: value.detach().cpu().contiguous().numpy() for name, value in {**named_inputs, **unnamed_inputs}.items()
    }


def kernel_times(model: bytes, inputs: Mapping[str, Any], runs: int) -> dict[tuple[str, str], list[float]]:
    """Measure the seconds of each node of an ONNX model in each run after the first one.

    Args:
        model: the content of an ONNX file.
        inputs: arrays by the names of its inputs.
        runs: the number of runs.

    Returns:
        The times by the name of the node and its operator, as onnxruntime's profiler names them.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        session = new_session(model, enable_profiling=True, profile_file_prefix=str(Path(folder) / "profile"))
        for _ in range(runs + 1):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(KERNEL):
            times[name.removesuffix(KERNEL), event["args"]["op_name"]].append(event["dur"] * 1e-6)
    return {node: seconds[1:] for node, seconds in times.items()}


KERNEL = "_kernel_time"
CALLS: Mapping[str, Callable[[nn.Module, Batch], Call]] = {EAGER: _eager_call, ONNXRUNTIME: _onnxruntime_call}
