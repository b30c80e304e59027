"""The cost of `import secateur`: large libraries are imported when they are needed first."""

import subprocess
import sys

LATE = (
    "jinja2",
    "markupsafe",
    "matplotlib",
    "numba",
    "onnx",
    "onnxruntime",
    "pandas",
    "scipy",
    "torch._dynamo",
    "transformers",
    "typer",
)
SCRIPT = f"import sys, secateur; print(*[name for name in {LATE!r} if name in sys.modules])"


def test_large_libraries_are_not_imported_with_secateur() -> None:
    process = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []
