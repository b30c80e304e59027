"""The table of options of other libraries, and what takes the place of each here."""

from dataclasses import dataclass

from secateur.options import is_real, short_text
from secateur.options.foreign_names import REMOVED_FRACTIONS


@dataclass(frozen=True)
class ForeignOption:
    """An option of other libraries, and what takes its place.

    Args:
        option: the option here; empty where none takes its place in a call.
        names: the names elsewhere, with spaces between them.
        meaning: what the option here says, which follows its name; or all that there is to do.
        example: its value in Python; `{name}`, `{value}` and `{remaining}` stand for the name elsewhere, its value, and
            1 minus its value.
        flag: the option on the command line, if it has another name there.
        argument: its value on the command line.
        beside: an option of the functions that an entry without an option applies to.
    """

    option: str
    names: str
    meaning: str
    example: str = ""
    flag: str = ""
    argument: str = ""
    beside: str = "keep"

    @property
    def command_option(self) -> str:
        """The name of the option on the command line, without dashes; empty where there is none."""
        return self.flag or self.option.replace("_", "-")

    def in_python(self, name: str, value: object) -> str:
        """Return what to write in a call."""
        example = f": {self.option}={_example_for(self.example, name, value)}" if self.example else ""
        return f"{self.option}= {self.meaning}{example}" if self.option else self.meaning

    def on_command_line(self, name: str, value: object) -> str:
        """Return what to write on the command line."""
        flag = f"--{self.command_option}"
        example = f": {flag} {_example_for(self.argument, name, value)}" if self.argument else ""
        meaning = self.meaning if self.option else "names what is written to"
        return f"{flag} {meaning}{example}"


def _example_for(example: str, name: str, value: object) -> str:
    """Return an example with the user's value in it, or the name of the value where it is no fraction."""
    is_fraction = is_real(value) and 0 < float(value) < 1  # type: ignore[arg-type]
    remaining = f"{1 - float(value):.6g}" if is_fraction else f"1 - {name}"  # type: ignore[arg-type]
    return example.replace("{remaining}", remaining).replace("{value}", short_text(value)).replace("{name}", name)


FOREIGN_OPTIONS: tuple[ForeignOption, ...] = (
    ForeignOption(
        "keep", REMOVED_FRACTIONS,
        "says what remains, in MACs, parameters or bytes", "{'macs': {remaining}}", argument="macs={remaining}",
    ),
    ForeignOption(
        "keep", "budget constraint constraints flops keep_ratio target_flops",
        "is the budget, by its unit", "{'macs': 0.5}", argument="macs=0.5",
    ),
    *(
        ForeignOption(
            "keep", f"{unit} target_{unit}", "is the budget", f"{{'{unit}': {{value}}}}", argument=f"{unit}={{value}}"
        )
        for unit in ("macs", "params", "bytes", "latency", "speedup", "ms")
    ),
    ForeignOption("loss", "loss_fn loss_function objective", "is the loss, with one value per example"),
    ForeignOption("by", "criterion", "is the ranking, and loss= the loss function", "'l2'", argument="l2"),
    ForeignOption(
        "by", "importance importance_fn importance_metric method pruner ranking scorer",
        "is the ranking (`secateur criteria` lists them)", "'l2'", argument="l2",
    ),
    ForeignOption(
        "data",
        "calib calib_data calibration calibration_data calibration_loader data_loader dataloader dataset "
        "dummy_input dummy_inputs example_input example_inputs examples forward_inputs input inputs loader "
        "train_data train_dataloader train_dataset train_loader x",
        "names the examples: a DataLoader, a data set, or batches of inputs with or without labels",
    ),
    ForeignOption(
        "example_inputs", "data dataloader dummy_input dummy_inputs example example_input input inputs x",
        "is one batch of inputs",
    ),
    ForeignOption(
        "test",
        "eval_data eval_dataset eval_loader test_data test_dataset test_loader val val_data val_dataset "
        "val_loader valid_loader validation validation_data",
        "names the examples that the report is measured on",
    ),
    ForeignOption(
        "skip",
        "exclude excluded excluded_layers exclude_layers exclude_op_names ignore ignored ignored_layers "
        "ignore_layers skip_layers",
        "names layers that keep all of their units, by module, class or glob",
    ),
    ForeignOption(
        "only",
        "include layer layers layer_names module modules op_names op_types root_module_types target_layers "
        "target_modules",
        "names the layers that may lose units, by module, class or glob",
    ),
    ForeignOption(
        "sizes", "channels config_list layer_ratios pruning_ratio_dict ratios sparsity_dict",
        "says what single layers keep", "{'layer1.*': 0.5}", flag="size", argument="layer1.*=0.5",
    ),
    ForeignOption(
        "allocation", "global_prune global_pruning global_ranking isomorphic scope",
        "says how the budget is spent on layers", "'global'", argument="global",
    ),
    ForeignOption(
        "floor", "max_pruning_ratio min_channels min_units",
        "is the least that a layer keeps", "0.1", argument="0.1",
    ),
    ForeignOption(
        "round_to", "align channel_divisor divisor multiple multiple_of",
        "makes the numbers of units multiples", "8", argument="8",
    ),
    ForeignOption("rounds", "iterations iterative_steps n_steps num_iterations", "is how often units are scored", "5"),
    ForeignOption(
        "metric", "accuracy_fn eval_fn eval_func evaluate evaluator metrics score_func",
        "is a function of outputs and targets",
    ),
    ForeignOption(
        "stop", "n_permutations n_samples nsamples num_samples permutations samples",
        "says when sampling ends", "secateur.stopping.StandardError(0.2)",
    ),
    ForeignOption(
        "ablation", "baseline baselines reference",
        "is the value of a removed unit", "'mean'", argument="mean",
    ),
    ForeignOption("seed", "generator random_seed random_state rng", "is the seed of all random numbers"),
    ForeignOption(
        "kinds", "head_pruning_ratio num_heads prune_head_dims prune_heads prune_num_heads",
        "selects the kinds of units", "'heads'", flag="kind", argument="heads",
    ),
    ForeignOption("seconds", "max_time time_budget time_limit timeout", "is how long the run may take"),
    ForeignOption(
        "checkpoint", "ckpt checkpoint_dir checkpoint_path resume_from",
        "is the folder that a run goes on from",
    ),
    ForeignOption("progress", "disable_tqdm show_progress verbose", "is True to show the progress, else False"),
    ForeignOption(
        "repair",
        "epochs finetune fine_tune finetuning retrain train train_fn trainer training_steps "
        "weight_reconstruction",
        "names the steps after the cut, of which 'tune' trains",
        "['refit', 'adapt', 'tune']", argument="refit,adapt,tune",
    ),
    ForeignOption(
        "", "optimizer optimizers",
        "the model is left as it is, and its optimizer, too: make another one from result.model.parameters(), or cut "
        "by secateur.cut(model, plan, optimizer=optimizer), which keeps the optimizer's state", beside="repair",
    ),
    ForeignOption("", "copy in_place inplace", "the model is left as it is, and result.model is a smaller copy"),
    ForeignOption("", "cuda device gpu", "everything is computed where the model is: give model.to(device)"),
    ForeignOption(
        "", "out out_dir output output_dir path save_dir save_path save_to",
        "files are written by a method of what is returned, such as result.save(folder)", flag="out",
    ),
    ForeignOption(
        "folder",
        "dir directory file filename out out_dir output output_dir path save_dir save_directory save_path save_to",
        "is the folder of the files of a result", "'small'",
    ),
    ForeignOption(
        "path", "f file file_name filename folder onnx_path out output output_path save_path",
        "is the file to write or to read",
    ),
    ForeignOption("opset", "opset_version target_opset", "is the version of ONNX's operators", "{value}"),
    ForeignOption(
        "", "bf16 bfloat16 dtype float16 fp16 half int8 precision quantization quantize quantized",
        "the file holds the model's own numbers: convert it afterwards (int8: docs/how-to/onnx.md), or export a "
        "converted model with secateur.export", beside="opset",
    ),
    ForeignOption(
        "", "batch_size dynamic dynamic_axes dynamic_batch dynamic_shapes dynamo input_names output_names",
        "the size of the batch is free where the model's code allows it, and inputs have the names of the arguments of "
        "`forward`", beside="opset",
    ),
    ForeignOption("sampler", "algorithm approximation estimator method", "names the estimator", "'permutation'"),
    ForeignOption(
        "", "ablation checkpoint data loss only progress resume seed skip",
        "it is an option of `secateur.score` and `secateur.prune`, beside by=", beside="coalitions",
    ),
)  # fmt: skip
"""Where a name stands twice, the first entry counts whose option the function has."""
