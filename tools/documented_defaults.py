"""Default values in the reference of the site: `by="obs"` where the source says `by=DEFAULTS.by`.

An extension of griffe, which reads the source for mkdocstrings. Constants and fields of `PruneConfig` are replaced by
their values, where these are literals.
"""

import ast
from typing import Any

from griffe import AliasResolutionError, Expr, ExprAttribute, ExprName, Extension, Function, GriffeLoader

DEFAULTS = "DEFAULTS."
CONFIG = "secateur.allocation.config.PruneConfig"


class DocumentedDefaults(Extension):
    """Replaces names in the default values of arguments by the values that they have."""

    def on_function(self, *, func: Function, loader: GriffeLoader, **_: Any) -> None:
        """Replace the defaults of one function."""
        for parameter in func.parameters:
            if isinstance(parameter.default, ExprName | ExprAttribute):
                parameter.default = literal_value(parameter.default, loader) or parameter.default


def literal_value(expression: str | Expr | None, loader: GriffeLoader) -> str | Expr | None:
    """Return the literal that an expression of names stands for, or None where it stands for none."""
    text = str(expression)
    if is_literal(text):
        return expression
    path = f"{CONFIG}.{text.removeprefix(DEFAULTS)}" if text.startswith(DEFAULTS) else None
    if path is None and isinstance(expression, ExprName):
        path = expression.canonical_path
    try:
        target = loader.modules_collection[path] if path else None
    except (KeyError, AliasResolutionError):
        return None
    return literal_value(target.value, loader) if target is not None and target.is_attribute else None


def is_literal(text: str) -> bool:
    """Return True for numbers, texts, None, and lists and tuples of these."""
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True
