"""The kinds of units that a person may choose among."""

from collections.abc import Sequence

from secateur.errors import NameMatchError
from secateur.options import check_name

USUAL = ("channels", "neurons", "residual", "heads", "experts")
BY_WIDTH = "head width"
BLOCKS = "blocks"
KINDS = (*USUAL, BY_WIDTH, BLOCKS)


def wanted_kinds(kinds: str | Sequence[str] | None, as_program: bool) -> frozenset[str]:
    """The kinds that were asked for, the usual ones by default.

    Raises:
        NameMatchError: there is no such kind of units, or not in this company.
    """
    wanted = frozenset(USUAL if kinds is None else [kinds] if isinstance(kinds, str) else kinds)
    for kind in sorted(wanted):
        check_name(kind, KINDS, "no kind of units is named")
    if BLOCKS in wanted and as_program:
        raise NameMatchError("blocks are cut from the model's own modules: leave as_program=True out, or blocks")
    if {BY_WIDTH, "heads"} <= wanted:
        raise NameMatchError("heads go whole, or all of them get narrower: ask for 'heads' or for 'head width'")
    return wanted
