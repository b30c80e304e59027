"""Files that Python packages ship, such as trained weights."""

import importlib.util
from pathlib import Path


def package_file(package: str, path: str) -> str:
    """Return the path of a file of a package, which is not imported.

    Args:
        package: the name of the package.
        path: the path of the file within the package.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations, f"the package {package} is not installed"
    return str(Path(next(iter(spec.submodule_search_locations))) / path)
