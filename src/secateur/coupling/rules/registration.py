"""Rules that users register for operators of their own."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from secateur.coupling.labels import Weight
from secateur.coupling.rules.context import OpContext
from secateur.coupling.rules.elementwise import POINTWISE
from secateur.coupling.rules.op_rule import (
    AttributeRule,
    BoundsRule,
    ChannelFlow,
    GateFlow,
    LabelRule,
    LiteralRule,
    MaskedOp,
    OpRule,
)
from secateur.coupling.rules.registry import UNKNOWN, built_in_rule, registered_rules, resolve_operator
from secateur.errors import OperatorRuleError, OptionError, SecateurError
from secateur.graph.operators import arguments, module_path
from secateur.graph.program import OpFn, OpOverride, Program


@dataclass(frozen=True)
class RuleHandle:
    """A registered rule, which can be removed; as a context manager it is removed at the end of the block.

    Args:
        operator: the qualified name of the operator.
    """

    operator: str

    def remove(self) -> None:
        """Remove the rule; networks that were traced with it must not be used any more."""
        registered_rules.pop(self.operator, None)

    def __enter__(self) -> "RuleHandle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def register_rule(
    operator: Any,
    labels: LabelRule | str,
    *,
    masked: MaskedOp | None = None,
    literals: LiteralRule | None = None,
    clips: BoundsRule | None = None,
    gates: GateFlow | None = None,
    channels: ChannelFlow | None = None,
    attributes: Mapping[type[nn.Module] | str, AttributeRule] | None = None,
) -> RuleHandle:
    """Register how units pass an operator of your own, so that layers on both sides of it can be cut.

    An operator without a rule freezes what it touches. The rule is called once for each call of the operator in the
    network, with an `OpContext` that has labels in place of tensors: integers that say which unit each entry belongs
    to. It couples labels that must be removed together (`op.couple`), freezes those that can't be removed
    (`op.freeze`), notes the axes that the operator sums or normalises over (`op.read`), and returns the labels of the
    result. What tracing finds is tried on a copy of the model, so a rule that couples too little freezes what it
    touches and does no harm.

    Args:
        operator: the operator: what `torch.library.custom_op` returns, `torch.ops.mylib.scale`, or "mylib::scale".
        labels: the rule; or the name of an operator of torch with the same arguments, such as "silu" for any operator
            that works entry by entry, whose whole rule is taken.
        masked: the operator with units absent, needed where it reads units and zeros in their place are not enough, as
            in a normalisation: `masked(present, **arguments)`, with 1 in `present` where an entry of the argument that
            is read is kept and 0 where it is absent. Its result must equal the operator's where all are present.
        literals: which integer arguments count entries; see `OpRule`.
        clips: the bounds beyond which the result is constant; see `OpRule`.
        gates: how derivatives by gates pass; see `OpRule`.
        channels: how a graph of channels continues; see `OpRule`.
        attributes: by class, the attributes of modules that repeat the sizes of their tensors: a function of a module
            and the shapes of its tensors by name, which returns the values by attribute.

    Returns:
        A handle: `handle.remove()`, or `with sc.register_rule(...)`, removes the rule again. Keep the rule for as long
        as networks that were traced with it are in use.

    Raises:
        OptionError: there is no such operator, it has a rule already, or a function has the wrong signature.

    Example:
        >>> import torch, secateur as sc
        >>> @torch.library.custom_op("docs::scale", mutates_args=())
        ... def scale(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ...     return x * weight
        >>> _ = scale.register_fake(lambda x, weight: torch.empty_like(x))
        >>> def scale_rule(op):
        ...     channels = op.axis_labels(op.activation("x"), -1)
        ...     op.couple(channels, op.axis_labels("weight", 0))
        ...     return op.broadcast(channels, -1)
        >>> class Scaled(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.first, self.last = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)
        ...         self.weight = torch.nn.Parameter(torch.rand(8))
        ...     def forward(self, x):
        ...         return self.last(scale(self.first(x), self.weight))
        >>> with sc.register_rule(scale, scale_rule):
        ...     network = sc.trace(Scaled(), torch.randn(2, 4))
        >>> [str(member) for member in network["first"].members]
        ['first.weight[0]', 'first.bias[0]', 'weight[0]', 'last.weight[1]']
    """
    name, overloads = resolve_operator(operator)
    if name in registered_rules or built_in_rule(name) not in (UNKNOWN, POINTWISE):
        raise OptionError(
            f"the operator {name} has a rule already; remove() the handle that `register_rule` returned before another "
            "is registered, and leave torch's own operators as they are"
        )
    rule = _rule_named(name, labels) if isinstance(labels, str) else OpRule(labels)
    rule = replace(
        rule,
        masked=masked or rule.masked,
        literals=literals or rule.literals,
        clips=clips or rule.clips,
        gates=gates or rule.gates,
        channels=channels or rule.channels,
        attributes=dict(attributes or {}),
    )
    _check_call(name, "labels", rule.labels, ("op",), "takes an OpContext, and nothing else")
    for overload in overloads if masked is not None else ():
        names = [argument.name for argument in overload._schema.arguments]
        _check_call(name, "masked", masked, ("present",), f"takes present, {', '.join(names)}", names)
    if literals is not None:
        _check_call(name, "literals", literals, ("op", "result"), "takes an OpContext and the labels of the result")
    registered_rules[name] = rule
    return RuleHandle(name)


def _rule_named(name: str, other: str) -> OpRule:
    rule = built_in_rule(resolve_operator(other if "::" in other else f"aten::{other}")[0])
    if rule is UNKNOWN:
        raise OptionError(f"labels={other!r} for the operator {name}: that operator has no rule; give a function")
    return rule


def _check_call(
    name: str, option: str, function: Any, positional: tuple[str, ...], expected: str, keywords: Any = ()
) -> None:
    """
    Raises:
        OptionError: a function can't be called with these arguments.
    """
    if not callable(function):
        raise OptionError(f"{option}= for the operator {name} is {function!r}; give a function that {expected}")
    try:
        inspect.signature(function).bind(*positional, **dict.fromkeys(keywords))
    except TypeError as failure:
        raise OptionError(f"{option}= for the operator {name} can't be called: {failure}; it {expected}") from None
    except ValueError:  # a function of C without a signature
        return


def is_registered(node: Node) -> bool:
    """Return whether an operator has a rule that a user registered."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name in registered_rules


def apply_registered(op: OpContext) -> Any:
    """Apply the rule that a user registered for an operator, and check what it returns.

    Raises:
        OperatorRuleError: the rule fails, or does not return labels in the shape of the result.
    """
    name = op.node.target._schema.name  # type: ignore[union-attr]
    reads = op.tracer.notes.reads
    before = len(reads)
    try:
        result = registered_rules[name].labels(op)
    except SecateurError:
        raise
    except Exception as failure:
        raise OperatorRuleError(
            f"the rule of {_described(op.node)} fails with {type(failure).__name__}: {failure}; its arguments are "
            f"{_shapes(op.args)}, those of operators by name in `op.args`, its result has shape {_shape(op.shape)}"
        ) from failure
    if not _fits(result, op.shape, op.tracer.space.size):
        raise OperatorRuleError(
            f"the rule of {_described(op.node)} returns {_shapes(result)} where labels in the shape of the result, "
            f"{_shape(op.shape)}, are needed; return op.broadcast(labels, dim) with one label for each index along "
            "dim, or labels of an argument that has this shape"
        )
    if registered_rules[name].masked is not None and len(reads) > before + 1:
        raise OperatorRuleError(
            f"the rule of {_described(op.node)} reads {len(reads) - before} axes, but masked= gets the presence along "
            "one; read one axis and freeze the others"
        )
    return result


def _fits(result: Any, shape: Any, size: int) -> bool:
    """Return whether what a rule returned are labels in a shape."""
    if isinstance(shape, torch.Size):
        if isinstance(result, Weight):
            return result.shape == shape
        is_labels = isinstance(result, Tensor) and result.dtype == torch.long and result.shape == shape
        return is_labels and (result.numel() == 0 or (int(result.min()) >= 0 and int(result.max()) < size))
    if isinstance(shape, list | tuple):
        return isinstance(result, list | tuple) and len(result) == len(shape) and all(
            _fits(item, item_shape, size) for item, item_shape in zip(result, shape, strict=True)
        )  # fmt: skip
    return True


def _described(node: Node) -> str:
    name = node.target._schema.name  # type: ignore[union-attr]
    return f"{name} (in {module_path(node) or 'the model itself'})"


def _shapes(value: Any) -> str:
    """Describe labels by their shapes."""
    if isinstance(value, Tensor | Weight):
        return _shape(value.shape)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shapes(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shapes(item) for item in value)}]"
    return repr(value)


def _shape(shape: Any) -> str:
    return str(tuple(shape)) if isinstance(shape, torch.Size) else str(shape)


def masked_checks(program: Program, reads: Mapping[Node, tuple[str, int]]) -> dict[Node, OpOverride]:
    """Return handlers that check the masked operators that users registered, on a run of the program.

    With every unit present a masked operator must give what the operator gives.

    Args:
        program: the program.
        reads: the operators that read units, with the argument and its axis.

    Raises:
        OperatorRuleError: (while the program runs) a masked operator fails, or gives something else.
    """
    return {
        node: _checked_call(node, registered_rules[node.target._schema.name].masked, *read)  # type: ignore[union-attr]
        for node, read in reads.items()
        if is_registered(node) and registered_rules[node.target._schema.name].masked is not None  # type: ignore[union-attr]
    }


def _checked_call(node: Node, masked: Any, argument: str, dim: int) -> OpOverride:
    names = [item.name for item in node.target._schema.arguments]  # type: ignore[union-attr]

    def handler(target: OpFn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        expected = target(*args, **kwargs)
        values = {**arguments(node), **dict(zip(names, args, strict=False)), **kwargs}
        x = values[argument]
        present = x.new_ones([length if axis == dim % x.dim() else 1 for axis, length in enumerate(x.shape)])
        try:
            result = masked(present, **values)
        except Exception as failure:
            raise OperatorRuleError(
                f"masked= of {_described(node)} fails with {type(failure).__name__}: {failure}; it is called with "
                f"present of shape {tuple(present.shape)} and the operator's own arguments, {', '.join(names)}"
            ) from failure
        if not _agree(result, expected):
            raise OperatorRuleError(
                f"masked= of {_described(node)} gives another result than the operator where all units are present: "
                f"shape {_shapes(result)} where the operator gives {_shapes(expected)}, or other values; compute what "
                "the operator computes, with `present` as a factor of its sums and counts"
            )
        return expected

    return handler


def _agree(result: Any, expected: Any) -> bool:
    """Return whether two results are the same but for rounding."""
    if isinstance(expected, Tensor):
        if not isinstance(result, Tensor) or result.shape != expected.shape:
            return False
        tolerance = 100 * torch.finfo(expected.dtype).eps if expected.is_floating_point() else 0.0
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        return torch.allclose(result.to(expected), expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    if isinstance(expected, list | tuple):
        return isinstance(result, list | tuple) and len(result) == len(expected) and all(map(_agree, result, expected))
    return True
