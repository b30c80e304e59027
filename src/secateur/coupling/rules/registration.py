"""Rules that users register for operators of their own."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
from torch import nn

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
from secateur.errors import OptionError
from secateur.options.call_checks import checked_calls


@checked_calls
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


@checked_calls
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

    Examples:
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
    base = _rule_named(name, labels) if isinstance(labels, str) else OpRule(labels)
    rule = replace(
        base,
        masked=masked or base.masked,
        literals=literals or base.literals,
        clips=clips or base.clips,
        gates=gates or base.gates,
        channels=channels or base.channels,
        attributes=dict(attributes or {}),
    )
    _check_functions(name, rule, overloads if masked is not None else ())
    registered_rules[name] = rule
    return RuleHandle(name)


def _check_functions(name: str, rule: OpRule, overloads: Sequence[torch._ops.OpOverload]) -> None:
    """Check that the functions of a rule can be called as they will be.

    Args:
        name: the operator.
        rule: its rule.
        overloads: the overloads of the operator whose arguments `masked` must take.

    Raises:
        OptionError: a function has the wrong signature.
    """
    _check_call(name, "labels", rule.labels, ("op",), "takes an OpContext, and nothing else")
    for overload in overloads:
        names = [argument.name for argument in overload._schema.arguments]
        _check_call(name, "masked", rule.masked, ("present",), f"takes present, {', '.join(names)}", names)
    if rule.literals is not None:
        _check_call(name, "literals", rule.literals, ("op", "result"), "takes an OpContext and the result's labels")


def _rule_named(name: str, other: str) -> OpRule:
    rule = built_in_rule(resolve_operator(other if "::" in other else f"aten::{other}")[0])
    if rule is UNKNOWN:
        raise OptionError(f"labels={other!r} for the operator {name}: that operator has no rule; give a function")
    return rule


def _check_call(
    name: str, option: str, function: Any, positional: Sequence[str], expected: str, keywords: Sequence[str] = ()
) -> None:
    """Check that a function can be called with some arguments.

    Args:
        name: the operator.
        option: the option that the function was given as.
        function: the function.
        positional: the names of arguments by position.
        keywords: the names of arguments by name.
        expected: what the error message says of them.

    Raises:
        OptionError: it can't.
    """
    if not callable(function):
        raise OptionError(f"{option}= for the operator {name} is {function!r}; give a function that {expected}")
    try:
        inspect.signature(function).bind(*positional, **dict.fromkeys(keywords))
    except TypeError as failure:
        raise OptionError(f"{option}= for the operator {name} can't be called: {failure}; it {expected}") from None
    except ValueError:  # a function of C without a signature
        return
