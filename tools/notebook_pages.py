"""Hook of MkDocs that makes a page of every notebook: Markdown, so that links are checked and the theme styles it.

The notebook itself is copied beside its page. mkdocs-jupyter makes HTML instead, which loads MathJax from another
server, and whose links are not checked.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

Cell = Mapping[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            name = PurePosixPath(file.src_uri)
            content = notebook_markdown(json.loads(file.content_string), name.name)
            files.append(File.generated(config, str(name.with_suffix(".md")), content=content))
    return files


def notebook_markdown(notebook: Mapping[str, Any], name: str) -> str:
    """Return a notebook as Markdown, with the outputs that are stored in it, and a link to the file."""
    title, *cells = [text for cell in notebook["cells"] for text in cell_markdown(cell)]
    heading, _, introduction = title.partition("\n")
    download = f"[Download as a notebook]({name}){{ download }}"
    return "\n\n".join([heading, download, introduction.strip(), *cells]) + "\n"


def cell_markdown(cell: Cell) -> Iterator[str]:
    """Yield the parts of a cell: its text, or its code and each of the outputs."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source.replace(".ipynb)", ".md)")
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            picture = _joined(data["image/png"]).replace("\n", "")
            yield f"![Plot that the code above draws](data:image/png;base64,{picture})"
        elif text := _joined(output.get("text", data.get("text/plain", ""))).rstrip():
            yield f'```text title="Output"\n{text}\n```'


def _joined(lines: str | Sequence[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)
