"""The model and the examples of the public functions, checked before anything is traced."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from secateur.coupling.network import Network
from secateur.data.batch import Batch, on_device
from secateur.data.conversion import as_batches
from secateur.data.model_inputs import device_of, floating_type, with_accepted_names, with_tokens_by_position
from secateur.data.next_tokens import TOKENS
from secateur.data.user_examples import UserExamples
from secateur.errors import DataError, TargetError, TraceError
from secateur.evaluation.losses import Loss
from secateur.evaluation.metric_checks import check_metric
from secateur.evaluation.metrics import Metric
from secateur.graph.contexts import isolated_evaluation, run_module
from secateur.graph.supported_models import unsupported_reason
from secateur.importance.input_checks import EXAMPLE, check_inputs
from secateur.importance.label_inputs import with_labels_as_inputs
from secateur.importance.loss_checks import check_class_targets, check_losses
from secateur.importance.registry import CriterionLike, Use, find_criterion
from secateur.utils.collected_warnings import warn


def check_model_values(model: nn.Module) -> None:
    """Check a model's parameters. One of nothing but 0 and minus infinity is a mask of attention.

    Raises:
        TraceError: a parameter has NaN or infinity in it.
    """
    for name, parameter in model.named_parameters():
        # A sum is not finite where an entry is not; taking it is many times as fast as looking at all of them.
        if not parameter.is_floating_point() or bool(parameter.detach().sum().isfinite()):
            continue
        is_bad = ~parameter.detach().isfinite()
        if bool(is_bad.any()) and not bool(((parameter == 0) | parameter.isneginf()).all()):
            kind = "NaN" if bool(parameter.isnan().any()) else "infinity"
            raise TraceError(
                f"{name} of this {type(model).__name__} has {kind} in {int(is_bad.sum())} of {parameter.numel()} "
                "entries; load weights without, for example those before the training diverged"
            )


def checked_data(
    model: nn.Module,
    data: Any,
    test: Any,
    loss: Loss | None,
    by: Sequence[CriterionLike],
    bound: str | None = None,
    metric: Metric | None = None,
    keeps_padding: bool = False,
) -> UserExamples:
    """Return the examples of a public function as batches, checked against the model.

    Args:
        model: the model.
        data: examples in any form that `prune` accepts.
        test: examples to measure on, or None for those of `data`.
        loss: the user's loss, or None.
        by: the criteria.
        bound: "loss", "accuracy" or "metric" where the budget is a bound on it.
        metric: the user's own metric, or None.
        keeps_padding: whether padded rows keep their padding, where a program is cut.

    Returns:
        The batches. Targets that the default loss can't use are left out, with a warning, where nothing needs them.

    Raises:
        TraceError: the model holds NaN, or is of a kind that is not supported.
        DataError: examples, targets or the loss can't be used.
    """
    reason = unsupported_reason(model)
    if reason is not None:
        raise TraceError(reason)
    check_model_values(model)
    batches = batches_of_model(model, data, keeps_padding)
    tests = batches if test is None else _test_batches(model, test, keeps_padding)
    uses = {find_criterion(criterion).uses for criterion in by}
    use: Use = "gradients" if "gradients" in uses else "loss" if "loss" in uses else "nothing"
    named_batches = [("data", batches)] if test is None else [("data", batches), ("test", tests)]
    for name, checked_batches in named_batches:
        outputs = _outputs_of(model, checked_batches, name, by_example=loss is None)
        if metric is not None and (checked_batches is tests or bound == "metric"):  # nothing else computes it
            all_outputs = ((batch, _output_of(model, batch)) for batch in checked_batches)
            check_metric(metric, outputs, all_outputs, bound == "metric" and checked_batches is batches)
        try:
            check_losses(outputs, checked_batches, loss, use)
            if bound == "accuracy":
                check_class_targets(checked_batches)
        except TargetError as failure:
            if bound in ("loss", "accuracy") or use != "nothing":
                raise
            batches, tests = _without_unusable_targets(failure, batches, tests, metric)
            break
    return UserExamples(batches, None if test is None else tests)


def _outputs_of(model: nn.Module, batches: list[Batch], name: str, by_example: bool) -> list[tuple[Batch, Any]]:
    """Return the checked batches with the model's outputs, and note in `batches` which of them are one example."""
    outputs = check_model_on(model, batches, name, by_example=by_example)
    batches[:] = [
        replace(batch, is_one_example=examples.is_one_example)
        for batch, (examples, _) in zip(batches, outputs, strict=True)
    ]
    return outputs


def _without_unusable_targets(
    failure: TargetError, batches: list[Batch], tests: list[Batch], metric: Metric | None
) -> tuple[list[Batch], list[Batch]]:
    """Return the examples without targets that the default loss can't use; a metric keeps them for itself."""
    if metric is not None:
        return [batch.with_metric_target() for batch in batches], [batch.with_metric_target() for batch in tests]
    warn(f"targets are left out, as no criterion needs them: {failure}")
    return [batch.without_target() for batch in batches], [batch.without_target() for batch in tests]


def batches_of_model(model: nn.Module, data: Any, keeps_padding: bool = False) -> list[Batch]:
    """Convert data to batches for a model: of its type, and with the targets that belong to its outputs."""
    keeps_padding = keeps_padding or isinstance(model, fx.GraphModule)
    title = type(model).__name__
    batches = as_batches(data, dtype=floating_type(model), title=title, keeps_padding=keeps_padding, model=model)
    return with_labels_as_inputs(model, with_accepted_names(model, batches), partial(_output_of, model))


def _output_of(model: nn.Module, batch: Batch) -> Any:
    with isolated_evaluation(model):
        return run_module(model, on_device(batch, device_of(model)))


def _test_batches(model: nn.Module, test: Any, keeps_padding: bool) -> list[Batch]:
    """Convert the examples to measure on to batches; errors name them.

    Raises:
        DataError: they can't be used.
    """
    try:
        return batches_of_model(model, test, keeps_padding)
    except DataError as failure:
        raise DataError(f"test=: {failure}") from failure


def batches_for(network: Network, data: Any) -> list[Batch]:
    """Convert data to batches for a traced network."""
    dtype = next((network.program.state(name).dtype for name in network.program.parameters), None)
    model = network.modules.get("")
    batches = as_batches(data, network.batch_size, dtype, network.title, network.as_program, model)
    return batches if TOKENS in network.example.kwargs else [with_tokens_by_position(batch) for batch in batches]


def usable_examples(model: nn.Module, examples: list[Batch]) -> list[Batch]:
    """Return the examples from the first one on which the model has an output that can be used.

    Raises:
        DataError: there is none.
    """
    for number, example in enumerate(examples):
        try:
            check_model_on(model, [example], EXAMPLE, by_example=False)
            return examples[number:]
        except DataError:
            if number == len(examples) - 1:
                raise
    return examples


def check_model_on(
    model: nn.Module, batches: Sequence[Batch], source: str = "data", by_example: bool = True
) -> list[tuple[Batch, Any]]:
    """Run a model on a few examples of each kind of batch, as `check_inputs` does."""
    with isolated_evaluation(model):
        device = device_of(model)
        return check_inputs(lambda batch: run_module(model, on_device(batch, device)), batches, source, by_example)


def check_program_sizes(network: Network, batches: Sequence[Batch]) -> None:
    """Check that batches have the sizes of a network whose program is cut in place of its code.

    Raises:
        DataError: a batch has others.
    """
    if not network.as_program:
        return
    for number, batch in enumerate(batches):
        leaves = pytree.tree_leaves((batch.args, dict(batch.kwargs)))
        reason = network.program.shapes.refusal(leaves)
        if reason is not None:
            refusal = network.program.wrong_sizes(leaves, f"a program is cut, which {reason}")
            advice = "or leave as_program=True out, and give a module that is not exported"
            raise DataError(f"batch {number} of data: {refusal}; {advice}")
