"""Names selected by globs."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from secateur.errors import NameMatchError


def match_globs(globs: str | Sequence[str], names: Iterable[str], noun: str) -> list[str]:
    """Return the names that match at least one glob, in their own order.

    Args:
        globs: one glob or several.
        names: all names.
        noun: a noun for the error message, such as "layer".

    Raises:
        NameMatchError: a glob matches no name; the message lists the nearest names.

    Examples:
        >>> match_globs("conv*", ["conv1", "conv2", "fc"], "layer")
        ['conv1', 'conv2']
    """
    known_names = list(names)
    patterns = [globs] if isinstance(globs, str) else list(globs)
    for glob in patterns:
        if glob not in known_names and not any(fnmatchcase(name, glob) for name in known_names):
            close_names = get_close_matches(glob, known_names, 3, 0.3) or known_names[:5]
            raise NameMatchError(f"{glob!r} matches no {noun}; the nearest are {', '.join(close_names) or 'none'}")
    return [name for name in known_names if any(name == glob or fnmatchcase(name, glob) for glob in patterns)]
