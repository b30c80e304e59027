"""Results of pruning: a model, the plan that it was cut by, a report, and a folder of files for all of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from secateur.coupling.plan import Plan
from secateur.deployment.export import export
from secateur.deployment.exported_file import ExportedFile
from secateur.files import Writer, text_writer
from secateur.importance.scores import Scores
from secateur.options.call_checks import checked_calls
from secateur.options.table import as_path
from secateur.report.report import Report
from secateur.surgery.hf_export import save_pretrained
from secateur.surgery.recipe import Recipe
from secateur.surgery.storage import save_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


@checked_calls
@dataclass(frozen=True, eq=False)
class PruningResult:
    """A pruned model and the plan that it was cut by; the base of all results.

    Args:
        model: the pruned model.
        plan: the units that were kept.
    """

    model: nn.Module
    plan: Plan

    def __repr__(self) -> str:
        cost, dense = self.plan.cost, self.plan.dense
        size = f"params={cost.params}/{dense.params}, macs={cost.macs}/{dense.macs}"
        return f"{type(self).__name__}({self.plan.network.title!r}, keep={dict(self.plan.keep)}, {size})"

    def _repr_html_(self) -> str:
        return self.plan._repr_html_()

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> object:
            try:
                return super().__getattribute__(name)
            except AttributeError:
                if hasattr(type(self), name):  # the error arose in a property of that name
                    raise
            advice = f"; the pruned model is its .model, which has {name}" if hasattr(nn.Module, name) else ""
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{advice}", name=name, obj=self
            )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Plot the numbers of units of each group, dense and kept, as `Plan.plot` does.

        Args:
            ax: the axes to plot on; by default those of a new figure.
        """
        return self.plan.plot(ax)

    def save(self, folder: str | Path) -> None:
        """Write recipe.json, weights.safetensors, the method's own files, and report.json, .html and .txt.

        A program that was cut is also written as model.pt2, for use without Secateur; `load` does not read it. A
        result without examples to measure on has no report. `secateur.load` restores the model, and `secateur report`
        prints the report.

        Args:
            folder: the folder to write to; it is created where it does not exist.

        Raises:
            StorageError: The files cannot be written. Files that existed before are unchanged.
        """
        figures = self._figures()
        companions = {**self._companions(), **({} if figures is None else report_writers(figures))}
        save_with(self.model, as_path(folder, "folder"), companions)

    def export(self, path: str | Path, *, opset: int | None = None) -> ExportedFile:
        """Write the model as an ONNX file or as a program of torch.export, and check the file, as `secateur.export`.

        Args:
            path: the file: `small.onnx` or `small.pt2`.
            opset: the version of the operators of ONNX.

        Returns:
            The facts of the file. Print them.

        Raises:
            SecateurError: of the kinds that `secateur.export` raises.
        """
        return export(self.model, path, [self.plan.network.example], opset=opset)

    def _companions(self) -> Mapping[str, Writer]:
        """Return the writers of the method's own files, by file name."""
        return {}

    def _figures(self) -> Report | None:
        """Return the report to save, None where there is none."""
        return None


@checked_calls
@dataclass(frozen=True, eq=False, repr=False)
class Result(PruningResult):
    """The result of `prune` and of `prune_while_training`.

    Args:
        model: the small model.
        plan: the units that were kept.
        scores: the importance of the units, by which the plan was made.
        report: the dense and the small network, measured on the same examples.
        recipe: the changes to tensors and attributes that turn the dense model into the small one.
    """

    scores: Scores
    report: Report
    recipe: Recipe

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan and the report as plain values."""
        return {"plan": self.plan.to_dict(), "report": self.report.to_dict()}

    def to_frame(self) -> "DataFrame":
        """Return the measures of both networks as a pandas data frame, as `Report.to_frame` does.

        `result.plan.to_frame()` has a row for each group, `result.scores.to_frame()` one for each unit.

        Raises:
            OptionError: pandas is not installed.
        """
        return self.report.to_frame()

    def to_html(self) -> str:
        """Return the report as a page, as `save` writes it."""
        return self.report.to_html()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Plot what remains of the dense network's parameters, MACs, bytes and time, as `Report.plot` does.

        `result.plan.plot()` plots the groups, `result.scores.plot()` the scores.

        Args:
            ax: the axes to plot on; by default those of a new figure.
        """
        return self.report.plot(ax)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model of the transformers library such that its `from_pretrained` loads it without Secateur.

        Args:
            folder: the folder to write to.

        Raises:
            StorageError: The model is not of that library, or no configuration describes its shape; `save` always can.
        """
        save_pretrained(self.model, self.plan, as_path(folder, "folder"))

    def _companions(self) -> Mapping[str, Writer]:
        return {"scores.safetensors": self.scores.writer()}

    def _figures(self) -> Report:
        return self.report


def report_writers(figures: Report) -> dict[str, Writer]:
    """Return the writers of a report as JSON, HTML and text, by file name."""
    return {
        "report.json": text_writer(figures.to_json()),
        "report.html": text_writer(figures.to_html()),
        "report.txt": text_writer(f"{figures}\n"),
    }
