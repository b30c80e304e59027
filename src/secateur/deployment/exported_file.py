"""The record of an exported file: what it holds, how it was checked, and how fast it runs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secateur.options.call_checks import checked_calls
from secateur.utils.html_table import html_table
from secateur.utils.text_table import align_columns


@checked_calls
@dataclass(frozen=True)
class ExportedFile:
    """A model that was exported to a file, and the checks of the file.

    Args:
        path: the file.
        format: the format and its version, such as "ONNX, opset 20".
        bytes: the size of the file, with that of the weights beside it, if there are any.
        inputs: the shape of each input, by its name; an axis that may vary is named.
        outputs: the shape of each output, by its name.
        difference: the largest difference between outputs of the file and of the module, relative to the largest
            output.
        batch_sizes: the batch sizes that were compared.
        milliseconds: the median time of a batch of the first of these sizes, by runtime: "torch" runs the module.
    """

    path: Path
    format: str
    bytes: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    difference: float
    batch_sizes: tuple[int, ...]
    milliseconds: Mapping[str, float]

    def rows(self) -> list[list[str]]:
        """Return the facts as rows of a name and a text."""
        sizes = " and ".join(map(str, self.batch_sizes))
        difference = f"largest difference from the module {self.difference:.1e}"
        if math.isnan(self.difference):
            difference = "shapes alone, as the model draws random numbers"
        times = ", ".join(f"{runtime} {value:.3g}" for runtime, value in self.milliseconds.items())
        return [
            ["format", self.format],
            ["size", f"{self.bytes:,} bytes"],
            ["inputs", ", ".join(f"{name} {shape}" for name, shape in self.inputs.items())],
            ["outputs", ", ".join(f"{name} {shape}" for name, shape in self.outputs.items())],
            ["checked", f"{difference}, for batches of {sizes}"],
            ["ms", f"{times} for a batch of {self.batch_sizes[0]}"],
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return {**asdict(self), "path": str(self.path), "batch_sizes": list(self.batch_sizes)}

    def __str__(self) -> str:
        return "\n".join([str(self.path), *(f"  {line}" for line in align_columns(self.rows(), frozenset({0, 1})))])

    def _repr_html_(self) -> str:
        return html_table(str(self.path), [["", ""], *self.rows()])
