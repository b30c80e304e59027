"""Units of budgets, criteria and removed fractions by the names of other libraries."""

from collections.abc import Mapping

REMOVED_FRACTIONS = (
    "amount ch_sparsity compression_ratio prune_rate prune_ratio pruning_rate pruning_ratio rate ratio "
    "sparsity sparsity_level target_ratio target_sparsity"
)
"""Options of other libraries for the fraction that is removed, where `keep` is the fraction that remains."""

FOREIGN_UNITS: Mapping[str, str] = {
    **dict.fromkeys(("flop", "flops", "gflops", "gmacs", "mac", "mflops", "mmacs"), "macs"),
    **dict.fromkeys(("num_params", "parameter", "parameters", "weights"), "params"),
    **dict.fromkeys(("file_size", "mb", "memory", "model_size", "size"), "bytes"),
    **dict.fromkeys(("channels", "experts", "filters", "heads", "neurons"), "units"),
    **dict.fromkeys(("inference_time", "runtime", "time"), "latency"),
    **dict.fromkeys(("milliseconds", "msec"), "ms"),
    **dict.fromkeys(("acc", "top1"), "accuracy"),
}


FOREIGN_CRITERIA: Mapping[str, str] = {
    **dict.fromkeys(("l2_norm", "l2norm", "magnitude", "norm", "weight"), "l2"),
    **dict.fromkeys(("l1_norm", "l1norm"), "l1"),
    **dict.fromkeys(("bn", "bn_scale", "bnscale", "slimming"), "batchnorm-scale"),
    **dict.fromkeys(("gradient", "group_taylor", "taylorfo", "taylor_fo_weight"), "taylor-gates"),
    **dict.fromkeys(("hessian", "obd", "obdc", "sparsegpt", "wanda"), "obs"),
    **dict.fromkeys(("kernel_shap", "shap", "shapley_value", "shapley_values"), "shapley"),
    **dict.fromkeys(("feature_ablation", "loo", "occlusion"), "leave-one-out"),
    **dict.fromkeys(("activation", "activations", "average_percentage_of_zeros"), "apoz"),
    **dict.fromkeys(("conductance", "ig"), "integrated-gradients"),
    **dict.fromkeys(("geometric_median", "gm"), "fpgm"),
}


def familiar_name(name: object, names: Mapping[str, str]) -> str | None:
    """Return the name here of a unit or a criterion of other libraries, or None."""
    return names.get(lookup_key(name)) if isinstance(name, str) else None


def lookup_key(name: str) -> str:
    """Return a name in small letters, with underscores in place of dashes and spaces."""
    return name.lower().replace("-", "_").replace(" ", "_")
