"""The kind of work that `prune` does, read from the functions on the stack.

The innermost file of `secateur` decides. What torch does on its behalf counts for it, so the share of a kind includes
its operators on tensors as well as its Python.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import secateur

PASSES, PRODUCTS, SOLVES, OTHER = "passes", "products", "solves", "other"
SOURCE = f"{Path(secateur.__file__).parent}/"
LARGEST = 8  # functions that are printed
KINDS: Mapping[str, tuple[str, ...]] = {
    # operators of the dense and the cut network, and their derivatives
    PASSES: (
        "graph/program.py",
        "graph/cursor.py",
        "graph/model_calls.py",
        "graph/contexts.py",
        "importance/activation_taps.py",
        "importance/fisher_pass.py",
        "importance/gradient.py",
        "masking/unit_means.py:handler",
        "recovery/compact_layers.py",
        "recovery/compact_values.py",
        "recovery/folded_layers.py",
        "recovery/paired_run.py",
        "recovery/problem_gradients.py",
        "evaluation/dense_outputs.py",
        "evaluation/evaluate.py",
    ),
    # normal equations: products of rows with each other and with targets, and what weights give for rows
    PRODUCTS: (
        "importance/fisher.py",
        "importance/shrinkage.py",
        "masking/row_products.py",
        "recovery/input_covariance.py",
        "recovery/layer_rows.py",
        "recovery/regression_moments.py",
        "utils/symmetric_matrices.py:products",
        "utils/symmetric_matrices.py:add_products",
    ),
    SOLVES: (
        "importance/elimination.py",
        "importance/inverse_covariances.py",
        "importance/obs.py",
        "recovery/dual_ridge.py",
        "recovery/ridge.py",
        "utils/symmetric_matrices.py",
    ),
    # values at the rows that are read, at the units that are kept, and what they should be
    "rows": (
        "masking/layer_rows.py",
        "masking/linear_layers.py",
        "masking/unit_means.py",
        "recovery/known_rows.py",
        "recovery/output_targets.py",
        "recovery/pruned_layer.py",
        "recovery/reconstruction_terms.py",
        "recovery/regression_rows.py",
        "recovery/row_weights.py",
        "recovery/target_rows.py",
        "recovery/targets.py",
    ),
    # weights read and written in the shapes of both networks, and how large each is for its penalty
    "weights": (
        "recovery/block_problem.py",
        "recovery/embedded.py",
        "recovery/embedded_state.py",
        "recovery/penalty_floor.py",
        "recovery/tensor_lists.py",
        "graph/model_copies.py",
    ),
    "divergence": ("evaluation/divergence.py", "evaluation/outputs.py", "evaluation/output_pairs.py"),
    # passes that measure times, for the report and for latency tables
    "times": (
        "evaluation/kernel_selection.py",
        "evaluation/latency_measurement.py",
        "evaluation/layer_times.py",
        "evaluation/measured_latency.py",
        "evaluation/runtimes.py",
        "evaluation/timing.py",
        "utils/devices.py",
    ),
    # the export, the walk that finds units, and trial cuts
    "trace": ("graph/", "coupling/", "surgery/", "tracing.py"),
    "plans": ("allocation/", "coupling/cost.py", "coupling/prefix_cost.py", "coupling/effective_macs.py"),
    OTHER: ("",),
}  # fmt: skip
_KIND_OF_LOCATION = {location: kind for kind, locations in KINDS.items() for location in locations}


def location_of(frame: FrameType | None) -> str:
    """Return the innermost function of `secateur` on the stack, as file:function; "" where there is none."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(SOURCE):
            return f"{file.removeprefix(SOURCE)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def kind_of(location: str) -> str:
    """Return the kind of work of a function, by the longest entry of the table that its location begins with.

    Args:
        location: the function, as `location_of` returns it.

    Examples:
        >>> kind_of("recovery/dual_ridge.py:_solve")
        'solves'
        >>> kind_of("utils/symmetric_matrices.py:add_products")
        'products'
    """
    return _KIND_OF_LOCATION[max((start for start in _KIND_OF_LOCATION if location.startswith(start)), key=len)]


def kind_shares(seconds: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return the share of each kind of work, of all processor time.

    Args:
        seconds: the processor time by stage and location.
    """
    shares = Counter[str]()
    for (_, location), value in seconds.items():
        shares[kind_of(location)] += value / sum(seconds.values())
    return {kind: shares[kind] for kind in KINDS if kind in shares}


def print_profile(seconds: Mapping[tuple[str, str], float], stages: Sequence[str]) -> None:
    """Print the share of each kind of work by stage, and the largest functions beside passes and solves, in percent.

    Args:
        seconds: the processor time by stage and location.
        stages: the stages in the order of the columns.
    """
    total = sum(seconds.values())
    shares, locations = Counter[tuple[str, str]](), Counter[str]()
    for (stage, location), value in seconds.items():
        kind, share = kind_of(location), 100 * value / total
        shares[stage, kind] += share
        if kind not in (PASSES, PRODUCTS, SOLVES):
            locations[f"{kind}: {location or 'outside of secateur'}"] += share
    print(f"{'% of prune':12} {'total':>7} " + " ".join(f"{stage:>10}" for stage in stages))
    for kind in KINDS:
        columns = [shares[stage, kind] for stage in stages]
        print(f"{kind:12} {sum(columns):7.1f} " + " ".join(f"{share:10.1f}" for share in columns))
    for location, share in locations.most_common(LARGEST):
        print(f"{share:5.1f} {location}")
