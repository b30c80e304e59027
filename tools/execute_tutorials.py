"""Run the notebooks of docs/tutorials and store their outputs: python tools/execute_tutorials.py [NAME ...].

Needs `pip install 'secateur[notebook,onnx,hf]' accelerate`. Each runs in an empty folder. What is written to standard
error (warnings with paths of this machine) and times of execution are not stored.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
STORED = ("text/plain", "image/png")


def stored_output(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output with the forms of it that a page shows."""
    if "data" in output:
        data = {form: output["data"][form] for form in STORED if form in output["data"]}
        output = {**output, "data": {form: data[form] for form in list(data)[-1:]}, "metadata": {}}
    return {**output, "execution_count": None} if "execution_count" in output else output


def execute(path: Path) -> None:
    """Run a notebook and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [
                nbformat.from_dict(stored_output(output)) for output in cell.outputs if output.get("name") != "stderr"
            ]
    notebook.metadata = {"language_info": {"name": "python"}}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in TUTORIALS.glob("*.ipynb")):
        execute(TUTORIALS / f"{name}.ipynb")
        print(name)
