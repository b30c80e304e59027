"""Trees of JSON with one value replaced, left out, or joined by another."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

MENU: tuple[Any, ...] = (None, True, -1, 0, 1, 7, 2**40, 10**30, 1.5, 1e308, "x", "", [], [[[]]], {}, {"x": 1})
WRONG: tuple[Any, ...] = (None, -1, 1.5, 10**30, [], {}, {"x": [1]})


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a tree of JSON; of long lists the first and the last alone."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    entries = list(items)
    for key, value in entries if isinstance(tree, dict) else [*entries[:1], *entries[1:][-1:]]:
        yield from leaves(value, (*path, key))


def mutated(
    tree: Any, menu: tuple[Any, ...], strings: tuple[Any, ...] = WRONG
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Functions that return the tree with one value replaced, left out, or joined by another.

    Args:
        tree: of JSON.
        menu: what stands in the place of values.
        strings: what stands in the place of strings, of which any other is as good.
    """
    for path in leaves(tree):
        old = _at(tree, path)
        for value in strings if isinstance(old, str) else menu:
            if type(value) is not type(old) or value != old:
                yield f"{path} = {value!r}", partial(_with_value, tree, path, value)
        yield f"{path} left out", partial(_without, tree, path)
        if isinstance(old, dict):
            for name in ("zz", "__dict__", "_parameters", "forward", "training", "1"):
                further = next(iter(old.values()), 3)
                yield f"{path} gets {name}", partial(_with_value, tree, (*path, name), further)
        if isinstance(old, list) and old:
            yield f"{path} is longer", partial(_with_value, tree, path, [*old, old[-1]])


def _with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(tree)
    _at(changed, path[:-1])[path[-1]] = value
    return changed


def _without(tree: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(tree)
    del _at(changed, path[:-1])[path[-1]]
    return changed


def _at(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key]
    return tree
