"""Self-contained HTML pages: the one jinja environment, and numbers as pages show them.

jinja2 is imported when the first page is made, so that `import secateur` does not load it.
"""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.version import __version__

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class KeyFigure:
    """One of the large numbers at the top of a page.

    Args:
        label: what it is.
        value: the number.
        note: the two numbers that it comes from.
    """

    label: str
    value: str
    note: str


def render_page(template: str, **values: Any) -> str:
    """Render a template of this package.

    Args:
        template: the name of its file, such as "report.html".
        values: the variables of the template; `version` is added.
    """
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("secateur", "report/templates")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"capitalize_first": _capitalize_first, "breakable": _breakable, "unbroken": _unbroken}
    return environment.get_template(template).render(version=__version__, **values)


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _breakable(name: str) -> "Markup":
    """Return the name of a layer with places where a line may end, after dots and underscores."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"[._](?=[^\W\d_])|(?<=[^\W\d_])[._]", r"\g<0><wbr>", str(escape(name))))


def _unbroken(cell: str) -> str:
    """Return a cell that is broken before an interval, and not within it."""
    return cell.replace("± ", "±\N{NO-BREAK SPACE}").replace(", ", ",\N{NO-BREAK SPACE}")


def short_count(count: float) -> str:
    """Return a count with three digits and the letter of its thousands.

    Examples:
        >>> short_count(950), short_count(1234567), short_count(4.2e9)
        ('950', '1.23 M', '4.2 G')
    """
    rounded_count = float(f"{count:.3g}")
    power = min(int(math.log10(max(rounded_count, 1)) // 3), 4)
    return f"{rounded_count / 1000**power:.4g} {' kMGT'[power]}".strip()
