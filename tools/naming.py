"""Count how the code reads: generic names, docstrings without a subject, names with two definitions, long files.

    python tools/naming.py [FOLDER ...] [--names]

FOLDER is `src` by default. `--names` lists the places.
"""

import argparse
import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GENERIC = frozenset(
    {
        "each", "found", "given", "held", "left", "made", "own", "part", "parts", "place", "places", "said", "thing",
        "things", "told",
    }
)  # fmt: skip
QUESTION = ("what ", "how ", "whether ", "where ", "which ", "whose ")
LONG_FILE, LONG_FUNCTION = 200, 25


@dataclass(frozen=True)
class Module:
    """A file of code."""

    path: Path
    tree: ast.Module
    lines: int


def modules(folders: list[Path]) -> list[Module]:
    """The parsed files of some folders."""
    paths = sorted(path for folder in folders for path in folder.rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    return [Module(path, ast.parse(text), text.count("\n")) for path, text in texts.items()]


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that is bound: assignments, loops, arguments, functions and classes, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def docstrings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The first line of every docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text.splitlines()[0], getattr(node, "lineno", 1)


def top_level_names(tree: ast.Module) -> Iterator[str]:
    """The names of a file's functions and classes, private ones left out."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def long_functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Functions of more than 25 lines, their docstrings left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and (body[-1].end_lineno or 0) - body[0].lineno + 1 > LONG_FUNCTION:
                yield node.name, node.lineno


def places(files: list[Module]) -> dict[str, list[str]]:
    """The places of each kind of fault."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        for name in set(top_level_names(file.tree)):
            owners[name].append(str(file.path))
    return {
        "generic names": [
            f"{file.path}:{line} {name}" for file in files for name, line in bound_names(file.tree) if name in GENERIC
        ],
        "docstrings that open with a question word": [
            f"{file.path}:{line} {text}"
            for file in files
            for text, line in docstrings(file.tree)
            if text.lower().startswith(QUESTION)
        ],
        "top-level names with two definitions": [
            f"{name}: {', '.join(paths)}" for name, paths in sorted(owners.items()) if len(paths) > 1
        ],
        f"files over {LONG_FILE} lines": [f"{file.path} {file.lines}" for file in files if file.lines > LONG_FILE],
        f"functions over {LONG_FUNCTION} lines": [
            f"{file.path}:{line} {name}" for file in files for name, line in long_functions(file.tree)
        ],
    }


def totals(files: list[Module]) -> dict[str, int]:
    """How many there are of what the faults are counted among."""
    names = Counter(name for file in files for name, _ in bound_names(file.tree))
    return {
        "generic names": sum(names.values()),
        "docstrings that open with a question word": sum(1 for file in files for _ in docstrings(file.tree)),
        f"files over {LONG_FILE} lines": len(files),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("src")])
    parser.add_argument("--names", action="store_true", help="list the places")
    args = parser.parse_args()
    files = modules(args.folders)
    whole = totals(files)
    for kind, where in places(files).items():
        share = f" of {whole[kind]} ({len(where) / whole[kind]:.1%})" if kind in whole else ""
        sys.stdout.write(f"{kind}: {len(where)}{share}\n")
        if args.names:
            sys.stdout.write("".join(f"  {line}\n" for line in where))


if __name__ == "__main__":
    main()
