"""Kinds of units that can be requested."""

from collections.abc import Sequence

from secateur.errors import NameMatchError
from secateur.options import check_name

USUAL = ("channels", "neurons", "residual", "heads", "experts")
BY_WIDTH = "head width"
BLOCKS = "blocks"
KINDS = (*USUAL, BY_WIDTH, BLOCKS)


def wanted_kinds(kinds: str | Sequence[str] | None, as_program: bool) -> frozenset[str]:
    """Return the requested kinds, the usual ones by default.

    Raises:
        NameMatchError: a kind does not exist, or does not go with the others.
    """
    names = frozenset(USUAL if kinds is None else [kinds] if isinstance(kinds, str) else kinds)
    for kind in sorted(names):
        check_name(kind, KINDS, "no kind of units is named")
    if BLOCKS in names and as_program:
        raise NameMatchError("blocks are cut from the model's own modules: leave as_program=True out, or blocks")
    if {BY_WIDTH, "heads"} <= names:
        raise NameMatchError("heads go whole, or all of them get narrower: ask for 'heads' or for 'head width'")
    return names
