"""Count how the code reads: generic names, docstrings without a subject, long files, import circles and others.

    python tools/naming.py [FOLDER ...] [--names]
    python tools/naming.py [FOLDER ...] --before REVISION

FOLDER is `src` by default. `--names` lists the locations. `--before` prints the counts of a revision of the repository
beside those of the working tree.
"""

import argparse
import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

GENERIC = frozenset(
    {
        "each", "found", "given", "held", "left", "made", "own", "part", "parts", "place", "places", "said", "thing",
        "things", "told", "what",
    }
)  # fmt: skip
QUESTION = ("what ", "how ", "whether ", "where ", "which ", "whose ")
LONG_FILE, LONG_FUNCTION = 200, 25
COUNTED = (
    ast.Module, ast.Name, ast.arg, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ImportFrom, ast.If,
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """A file of code.

    Args:
        path: the file.
        tree: its syntax tree.
        nodes: the nodes of the tree that a count looks at, in the order of `ast.walk`.
        lines: the number of lines.
    """

    path: Path
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    lines: int

    @classmethod
    def of(cls, path: Path) -> "Module":
        """Parse a file."""
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        return cls(path, tree, tuple(node for node in ast.walk(tree) if isinstance(node, COUNTED)), text.count("\n"))


def modules(folders: list[Path]) -> list[Module]:
    """Parse the files of some folders."""
    return [Module.of(path) for path in sorted(path for folder in folders for path in folder.rglob("*.py"))]


def bound_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yield every bound name with its line: assignments, loops, arguments, functions and classes."""
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def docstrings(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yield the first line of every docstring with its line."""
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text.splitlines()[0], getattr(node, "lineno", 1)


def top_level_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names of a file's functions and classes, private ones included, but for `main` and those of Python."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name != "main" and not node.name.startswith("__"):
            yield node.name


def long_functions(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yield the functions of more than 25 lines without their docstrings."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and (body[-1].end_lineno or 0) - body[0].lineno + 1 > LONG_FUNCTION:
                yield node.name, node.lineno


def imported_modules(module: Module, root: Path) -> set[str]:
    """Return the modules of the same package that a file imports at run time, as dotted names below the package."""
    package = root.name
    at_run_time = [node for node in module.nodes if isinstance(node, ast.ImportFrom)]
    typing_only = {
        id(statement)
        for node in module.nodes
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
    }
    names = set()
    for node in at_run_time:
        if id(node) not in typing_only and node.module and node.module.split(".")[0] == package:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def import_circles(files: list[Module]) -> list[str]:
    """Return the sets of subpackages that import each other in a circle, directly or through others."""
    roots = {file.path.parents[len(file.path.parts) - 2 - file.path.parts.index("secateur")] for file in files
             if "secateur" in file.path.parts}  # fmt: skip
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for root in roots:
        for file in files:
            if root in file.path.parents:
                source = file.path.relative_to(root).with_suffix("").parts[0]
                targets = {name.split(".")[1] for name in imported_modules(file, root) if "." in name}
                known = {entry.stem for entry in root.iterdir()}
                graph[source] |= (targets & known) - {source, "__init__"}
    reach = {name: _reachable(graph, name) for name in list(graph)}
    circles = {frozenset(other for other in reach[name] if name in reach.get(other, ())) for name in reach}
    return sorted(", ".join(sorted(circle)) for circle in circles if len(circle) > 1)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    stack = list(graph.get(start, ()))
    while stack:
        name = stack.pop()
        if name not in reached:
            reached.add(name)
            stack += graph.get(name, ())
    return reached


def operator_tables(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the top-level dicts and sets whose entries are operators of torch, by object or by name."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            entries = [
                ast.unparse(entry)
                for display in ast.walk(node.value)
                if isinstance(display, ast.Dict | ast.Set)
                for entry in (display.keys if isinstance(display, ast.Dict) else display.elts)
                if entry is not None
            ]
            operators = [entry for entry in entries if is_operator(entry)]
            if len(operators) > 1 and 2 * len(operators) > len(entries):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                yield ast.unparse(target), node.lineno


def is_operator(expression: str) -> bool:
    """Return True for `torch.ops.aten.add.Tensor`, `ATEN.add.Tensor` and the text `'add'`."""
    return "aten." in expression.lower() or expression.strip("'\"") in operator_names()


@cache
def operator_names() -> frozenset[str]:
    """Return the names of all operators of torch, without namespaces and overloads."""
    names = torch._C._dispatch_get_all_op_names()
    return frozenset(name.removeprefix("aten::").partition(".")[0] for name in names if name.startswith("aten::"))


def findings(files: list[Module]) -> dict[str, list[str]]:
    """Return the locations of each kind of finding."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        for name in set(top_level_names(file.tree)):
            owners[name].append(str(file.path))
    return {
        "generic names": [
            f"{file.path}:{line} {name}" for file in files for name, line in bound_names(file.nodes) if name in GENERIC
        ],
        "docstrings that open with a question word": [
            f"{file.path}:{line} {text}"
            for file in files
            for text, line in docstrings(file.nodes)
            if text.lower().startswith(QUESTION)
        ],
        "top-level names with two definitions": [
            f"{name}: {', '.join(paths)}" for name, paths in sorted(owners.items()) if len(paths) > 1
        ],
        f"files over {LONG_FILE} lines": [f"{file.path} {file.lines}" for file in files if file.lines > LONG_FILE],
        f"functions over {LONG_FUNCTION} lines": [
            f"{file.path}:{line} {name}" for file in files for name, line in long_functions(file.nodes)
        ],
        "circles of imports between packages": import_circles(files),
        "tables of operators": [
            f"{file.path}:{line} {name}" for file in files for name, line in operator_tables(file.tree)
        ],
        "classes": [
            f"{file.path}:{node.lineno} {node.name}"
            for file in files
            for node in file.nodes
            if isinstance(node, ast.ClassDef)
        ],
    }


def totals(files: list[Module]) -> dict[str, int]:
    """Return the numbers of names, docstrings and files that the findings are among."""
    names = Counter(name for file in files for name, _ in bound_names(file.nodes))
    return {
        "generic names": sum(names.values()),
        "docstrings that open with a question word": sum(1 for file in files for _ in docstrings(file.nodes)),
        f"files over {LONG_FILE} lines": len(files),
    }


def summary(files: list[Module]) -> dict[str, str]:
    """Return the count of each kind of finding, with its share where there is a total."""
    counts = totals(files)
    return {
        kind: f"{len(locations)} of {counts[kind]} ({len(locations) / max(counts[kind], 1):.1%})"
        if kind in counts
        else str(len(locations))
        for kind, locations in findings(files).items()
    }


def summary_before(revision: str, folders: list[Path]) -> dict[str, str]:
    """Return the summary of a revision of the repository."""
    command = ["git", "archive", "--format=tar", revision, *map(str, folders)]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    with TemporaryDirectory() as root, tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(root, filter="data")
        return summary(modules([Path(root) / folder for folder in folders]))


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("src")])
    parser.add_argument("--names", action="store_true", help="list the locations")
    parser.add_argument("--before", metavar="REVISION", help="a revision to compare with")
    args = parser.parse_args()
    files = modules(args.folders)
    locations, before = findings(files), {}
    if args.before:
        before = summary_before(args.before, args.folders)
    for kind, count in summary(files).items():
        sys.stdout.write(f"{kind}: {f'{before[kind]} -> ' if before else ''}{count}\n")
        if args.names:
            sys.stdout.write("".join(f"  {line}\n" for line in locations[kind]))


if __name__ == "__main__":
    main()
