"""Examples, targets and the loss, checked on what the network makes of one or two examples of each kind of batch."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.coupling.network import Network
from secateur.data.batch import Batch, on_device
from secateur.data.conversion import as_batches
from secateur.data.model_inputs import device_of, floating_type
from secateur.errors import BudgetError, DataError, SecateurError, TargetError, TraceError
from secateur.evaluation.losses import Loss, Reference, check_target, example_losses, is_logits, main_output
from secateur.graph.contexts import preserved, run_module
from secateur.graph.supported_models import unsupported_reason
from secateur.importance.context import MICROBATCH
from secateur.importance.registry import CriterionLike, Use, find_criterion
from secateur.options import described

Run = Callable[[Batch], Any]
FEW = 2
EXAMPLE = "the example"


def check_model_values(model: nn.Module) -> None:
    """
    Raises:
        TraceError: a parameter has NaN in it.
    """
    for name, parameter in model.named_parameters():
        # A sum is NaN where an entry is; taking it is many times as fast as looking at all of them.
        if parameter.is_floating_point() and bool(parameter.detach().sum().isnan() and parameter.isnan().any()):
            bad = int(parameter.isnan().sum())
            raise TraceError(
                f"{name} of this {type(model).__name__} has NaN in {bad} of {parameter.numel()} entries; load weights "
                "without, for example those before the training diverged"
            )


def checked_data(
    model: nn.Module,
    data: Any,
    test: Any,
    loss: Loss | None,
    by: Sequence[CriterionLike],
    bound: str | None = None,
) -> tuple[list[Batch], list[Batch]]:
    """The examples to work with and those to measure on, checked against the model before anything is traced.

    Args:
        model: the model.
        data, test: as `prune` takes them; without `test` the examples of `data` serve for both.
        loss: the user's own, or None.
        by: the criteria.
        bound: "loss" or "accuracy" where the budget is a bound on it, for which targets are needed besides.

    Returns:
        Both. Targets that the default loss can't use are left out, with a warning, where nothing needs them.

    Raises:
        TraceError: the model holds NaN, or can't be cut for what it is.
        DataError: examples, targets or the loss can't be used.
    """
    reason = unsupported_reason(model)
    if reason is not None:
        raise TraceError(reason)
    check_model_values(model)
    dtype = floating_type(model)
    batches = as_batches(data, dtype=dtype)
    tests = batches if test is None else as_batches(test, dtype=dtype)
    uses = {find_criterion(criterion).uses for criterion in by}
    use: Use = "gradients" if "gradients" in uses else "loss" if "loss" in uses else "nothing"
    parts = [("data", batches)] if test is None else [("data", batches), ("test", tests)]
    for what, part in parts:
        outputs = check_model_on(model, part, what, by_example=loss is None)
        part[:] = [
            replace(batch, is_one_example=examples.is_one_example)
            for batch, (examples, _) in zip(part, outputs, strict=True)
        ]
        try:
            check_losses(outputs, part, loss, use)
            if bound == "accuracy":
                _check_classes(part)
        except TargetError as failure:
            if bound is not None or use != "nothing":
                raise
            warnings.warn(f"targets are left out, as no criterion needs them: {failure}", stacklevel=4)
            batches = [batch.without_target() for batch in batches]
            tests = [batch.without_target() for batch in tests]
            break
    return batches, tests


def _check_classes(batches: Sequence[Batch]) -> None:
    """
    Raises:
        BudgetError: there are targets that are no class numbers, of which no accuracy can be taken.
    """
    for number, batch in enumerate(batches):
        target = batch.target
        if target is not None and (not isinstance(target, Tensor) or target.is_floating_point()):
            kind = f"of {target.dtype}" if isinstance(target, Tensor) else described(target)
            raise BudgetError(
                f"a bound on the accuracy needs class numbers, but the targets of batch {number} are {kind}; give "
                "class numbers, inputs alone, or a bound on the loss, {'loss': 0.05}"
            )


def taken_examples(model: nn.Module, examples: list[Batch]) -> list[Batch]:
    """The examples from the first on that a model takes, with an output that can be used.

    Raises:
        DataError: it takes none of them.
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
    model: nn.Module, batches: Sequence[Batch], what: str = "data", by_example: bool = True
) -> list[tuple[Batch, Any]]:
    """Run a model on a few examples of each kind of batch, as `check_inputs` does."""
    with preserved(model):
        device = device_of(model)
        return check_inputs(lambda batch: run_module(model, on_device(batch, device)), batches, what, by_example)


def check_inputs(
    run: Run, batches: Sequence[Batch], what: str = "data", by_example: bool = True
) -> list[tuple[Batch, Any]]:
    """Run a network on a few examples of each kind of batch, by the shapes and types of their inputs.

    Args:
        run: from a batch to the network's output.
        batches: the examples.
        what: what they are, for messages: "data" or "test".
        by_example: whether the first axis of outputs must be the examples, as the default loss takes them.

    Returns:
        For each batch the examples that were run of its kind, and the network's output on them.

    Raises:
        DataError: the network refuses one of them, gives no output that can be used, or one without the examples along
            its first axis; the batch is named.
    """
    outputs: dict[str, tuple[Batch, Any]] = {}
    results = []
    for number, batch in enumerate(batches):
        kind, place = _kind(batch), what if what == EXAMPLE else f"batch {number} of {what}"
        if kind not in outputs:
            examples, output = _run_few(run, batch, place)
            if _is_one_example(examples, output):
                output = output if len(examples.tensors[0]) == len(batch.tensors[0]) else run(batch)
                examples = replace(batch, is_one_example=True)
            _check_output(output, examples, place, by_example and not examples.is_one_example)
            outputs[kind] = examples, output
        results.append(outputs[kind])
    return results


def check_program_sizes(network: Network, batches: Sequence[Batch]) -> None:
    """Check that a network whose program is cut, not its code, is given the sizes that the program holds.

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
            raise DataError(f"batch {number} of data: {refusal}; or leave as_program=True out")


def _is_one_example(batch: Batch, output: Any) -> bool:
    """Whether a batch is a graph or a set of points, of which the network gives no result for each entry.

    Images and sequences, with three axes or more, have an axis for examples, or lack it by mistake.
    """
    if batch.is_one_example:
        return True
    floats = [tensor for tensor in batch.tensors if tensor.is_floating_point()]
    if not floats or (floats[0].dim() != 2 and batch.is_divisible):
        return False
    lengths = {length for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) for length in leaf.shape}
    return batch.size not in lengths


def _kind(batch: Batch) -> str:
    """What batches that a network takes alike have in common."""
    size = batch.size

    def each(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        shape = tuple(leaf.shape)
        return leaf.dtype, ("batch", *shape[1:]) if shape and shape[0] == size else shape

    return repr(pytree.tree_map(each, (batch.args, dict(batch.kwargs))))


def _run_few(run: Run, batch: Batch, place: str) -> tuple[Batch, Any]:
    """The first examples of a batch and the output on them; all where the network takes no fewer."""
    splits = (batch.size or 0) > FEW and batch.has_target_by_example and not batch.is_whole
    few = batch.take(torch.arange(FEW)) if splits else batch
    try:
        return few, run(few)
    except SecateurError:
        pass
    try:
        return batch, run(batch)
    except SecateurError as failure:
        raise DataError(f"{place}: {failure}") from failure


def _check_output(output: Any, examples: Batch, place: str, by_example: bool) -> None:
    """
    Raises:
        DataError: there is no floating-point tensor in an output, or NaN, or not one entry for each example.
    """
    scores = main_output(output)
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in examples.tensors)
    if bool(scores.isnan().any()):
        raise DataError(f"{place}: the network's output of shape {tuple(scores.shape)} has NaN for inputs {shapes}")
    if by_example and examples.size is not None and scores.shape[:1] != (examples.size,):
        raise DataError(
            f"{place}: the network's output has shape {tuple(scores.shape)} for {examples.size} examples, inputs "
            f"{shapes}; the first axis of inputs and outputs is the batch, so give a single example as x.unsqueeze(0)"
        )


def check_losses(run_few: Sequence[tuple[Batch, Any]], batches: Sequence[Batch], loss: Loss | None, use: Use) -> None:
    """Check that losses can be taken of all batches.

    Args:
        run_few: what `check_inputs` gave for the batches.
        batches: the examples.
        loss: the user's own, or None.
        use: what the criterion takes of losses.

    Raises:
        TargetError: targets do not fit the default loss.
        DataError: the user's own loss fails, does not give one finite value per example, or has no gradient.
    """
    if loss is None:
        for batch, (_, output) in zip(batches, run_few, strict=True):
            if batch.target is not None:
                check_target(output, batch.target, None if batch.is_one_example else batch.size)
        _warn_of_one_hot(run_few)
    for number, batch in enumerate(batches):
        if (batch.size or 0) > MICROBATCH and not batch.has_target_by_example and loss is not None:
            raise DataError(
                f"batch {number} has {batch.size} examples, which are taken in parts of {MICROBATCH}, but its targets "
                "have no entry for each example; give tensors or lists with one, or smaller batches"
            )
    for examples, output in {id(output): (examples, output) for examples, output in run_few}.values():
        with torch.set_grad_enabled(use == "gradients"):
            outputs = pytree.tree_map(_as_leaf, output)
            target = on_device(Batch((), {}, examples.target), main_output(output).device).target
            values = example_losses(loss, outputs, Reference(target, output), examples.size or 1)
        if use == "gradients" and loss is not None and not values.requires_grad:
            raise DataError(
                "loss= has no gradient by the network's output: leave out .detach(), .item(), torch.no_grad() and "
                "numpy, or rank by a criterion that needs no gradients, such as 'shapley', 'obs' or 'apoz'"
            )


def _as_leaf(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_(torch.is_grad_enabled())
    return value


def _warn_of_one_hot(run_few: Sequence[tuple[Batch, Any]]) -> None:
    """Say so where floating-point targets are taken for a regression's, and look like one-hot class labels."""
    for examples, output in run_few:
        target = examples.target
        if not isinstance(target, Tensor) or not target.is_floating_point() or not is_logits(output):
            return
        if target.dim() != 2 or not bool(((target == 0) | (target == 1)).all() and (target.sum(1) == 1).all()):
            return
    warnings.warn(
        "the targets look like one-hot labels, but floating-point targets are compared by their squared error; for "
        "cross entropy give class numbers, target.argmax(1), or loss=",
        stacklevel=4,
    )
