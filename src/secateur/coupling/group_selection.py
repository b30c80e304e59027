"""Groups selected by globs."""

import fnmatch
from collections.abc import Sequence
from difflib import get_close_matches

from secateur.errors import NameMatchError


def select_groups(
    names: Sequence[str], only: str | Sequence[str] | None = None, skip: str | Sequence[str] | None = None
) -> set[str]:
    """Return the names that match one of the globs `only`, all by default, and none of `skip`.

    Raises:
        NameMatchError: a glob matches no name; the message offers the nearest.
    """
    included, excluded = (
        None if globs is None else _matching([globs] if isinstance(globs, str) else globs, names)
        for globs in (only, skip)
    )
    return (set(names) if included is None else included) - (excluded or set())


def _matching(globs: Sequence[str], names: Sequence[str]) -> set[str]:
    matched: set[str] = set()
    for glob in globs:
        matches = set(names) & {glob} or set(fnmatch.filter(names, glob))
        if not matches:
            near = get_close_matches(glob, names, 3, 0.3) or names[:5]
            raise NameMatchError(f"no group is named {glob!r}; the nearest are {', '.join(near)}")
        matched |= matches
    return matched
