"""Times of the modules of a network in onnxruntime, by its profiler."""

import ast
from collections import defaultdict
from collections.abc import Collection
from typing import Any

from secateur.evaluation.layer_times import ROUNDS, LayerTime
from secateur.evaluation.runtimes import OnnxModel, kernel_times

SCOPES = "pkg.torch.onnx.name_scopes"
BLOCKED = "_nchwc"
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def onnx_layer_times(dense: OnnxModel, small: OnnxModel, modules: Collection[str]) -> tuple[LayerTime, ...]:
    """Measure the time of each module, and under "" that of operators of none; in the order of the dense network.

    Operators that onnxruntime fuses with a layer, such as its batch norm and its activation, count as the layer's.

    Args:
        dense: the dense network.
        small: the smaller network.
        modules: the names of all modules of the dense network.
    """
    innermost = {name for name in modules if name and not any(other.startswith(f"{name}.") for other in modules)}
    before, after = (_session_times(exported, innermost) for exported in (dense, small))
    return tuple(LayerTime(name, ms, after.get(name, 0.0)) for name, ms in before.items())


def _session_times(exported: OnnxModel, modules: Collection[str]) -> dict[str, float]:
    milliseconds: defaultdict[str, float] = defaultdict(float)
    sources = _Sources(exported.proto, modules)
    for (name, operator), seconds in kernel_times(exported.content, exported.inputs, ROUNDS).items():
        milliseconds[sources.module_of(name, operator)] += min(seconds) * 1e3
    milliseconds[""] += 0.0
    return dict(milliseconds)


class _Sources:
    """The modules from which the nodes come that onnxruntime runs."""

    def __init__(self, proto: Any, modules: Collection[str]) -> None:
        self._modules = modules
        self._by_name = {node.name: node for node in proto.graph.node}
        self._by_output = {output: node for node in proto.graph.node for output in node.output}

    def module_of(self, name: str, operator: str) -> str:
        """Return the module of a node that runs; "" where it belongs to none."""
        node = self._by_name.get(name) or self._by_output.get(name.removesuffix(BLOCKED))
        if node is None:  # the names of fused nodes hold those of their parts
            fused_names = [name_of_source for name_of_source in self._by_name if name_of_source in name]
            node = self._by_name[max(fused_names, key=len)] if fused_names else None
        while node is not None and operator in LAYERS and node.op_type not in LAYERS:
            node = next((self._by_output[value] for value in node.input if value in self._by_output), None)
        return "" if node is None else self._innermost_module(node)

    def _innermost_module(self, node: Any) -> str:
        """Return the module whose weight an operator of the exported model reads, or in whose code it stands."""
        owners = (value.rpartition(".")[0] for value in node.input)
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        candidates = (*owners, *reversed(ast.literal_eval(scopes)))
        return next((path for path in candidates if path in self._modules), "")
