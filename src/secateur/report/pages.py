"""Self-contained HTML pages: the one jinja environment, and plots as SVG.

matplotlib and jinja2 are imported when the first page is made, so that `import secateur` does not load them.
"""

import io
from typing import TYPE_CHECKING, Any

from secateur.version import __version__

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DENSE_COLOR, PRUNED_COLOR = "#b8c4d0", "#2f6f4f"


def render_page(template: str, **values: Any) -> str:
    """Render a template of this package.

    Args:
        template: the name of its file, such as "page.html".
        values: the variables of the template; `version` is added.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("secateur", "report"), autoescape=True)
    return environment.get_template(template).render(version=__version__, **values)


def new_figure(width: float, height: float, layout: str | None = None) -> "Figure":
    """Return an empty figure of a width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def figure_svg(figure: "Figure") -> "Markup":
    """Return a figure as SVG that can stand in a page."""
    from markupsafe import Markup

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def despine(axes: "Axes") -> "Axes":
    """Remove the top and right spines of axes, and return the axes."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes
