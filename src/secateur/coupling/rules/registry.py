"""The registry of operator rules. An operator without a rule freezes what it touches."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from secateur.coupling.rules import (
    attention,
    conv,
    copies,
    elementwise,
    embedding,
    fft,
    indexing,
    matmul,
    moe,
    norm,
    patches,
    pooling,
    recurrent,
    reduction,
    scatter,
    shape_ops,
    slicing,
)
from secateur.coupling.rules.context import OpContext, freeze_arguments
from secateur.coupling.rules.elementwise import POINTWISE
from secateur.coupling.rules.op_rule import AttributeRule, OpRule, RuleTable
from secateur.errors import OptionError

FAMILIES = (
    attention, conv, copies, elementwise, embedding, fft, indexing, matmul, moe, norm, patches, pooling, recurrent,
    reduction, scatter, shape_ops, slicing,
)  # fmt: skip


def freeze_unknown(op: OpContext) -> Any:
    """Freeze what an operator without a rule touches."""
    return freeze_arguments(op, "there is no rule for this operator")


UNKNOWN = OpRule(freeze_unknown)


def _rules_by_operator(tables: tuple[RuleTable, ...]) -> dict[str, OpRule]:
    """Return the rules of all families by the qualified names of operators; names without a namespace are torch's."""
    rules: dict[str, OpRule] = {}
    for table in tables:
        for names, rule in table.items():
            for name in names.split():
                full_name = name if "::" in name else f"aten::{name}"
                assert full_name not in rules, f"two rules for {full_name}"
                rules[full_name] = rule
    return rules


BUILT_IN: Mapping[str, OpRule] = _rules_by_operator(tuple(family.RULES for family in FAMILIES))
registered_rules: dict[str, OpRule] = {}
"""The rules that users registered (see `registration`), by the qualified names of operators."""

MODULE_CLASSES: Mapping[type[nn.Module] | str, AttributeRule] = {
    kind: attribute_rule for rule in BUILT_IN.values() for kind, attribute_rule in rule.attributes.items()
}


def qualified_name(node: Node) -> str:
    """Return the name of an operator with its namespace, such as "aten::conv2d"; "" for other functions."""
    return str(node.target._schema.name) if isinstance(node.target, torch._ops.OpOverload) else ""


def rule_of(node: Node) -> OpRule:
    """Return the rule of an operator."""
    return rule_named(qualified_name(node))


def functional_rule_of(node: Node) -> OpRule:
    """Return the rule of an operator; of one that works in place, the rule of its functional form."""
    return rule_named(qualified_name(node).removesuffix("_"))


def rule_named(name: str) -> OpRule:
    """Return the rule of an operator by its name, such as "mylib::scale"; a name without a namespace is torch's."""
    full_name = name if "::" in name else f"aten::{name}"
    return registered_rules.get(full_name) or built_in_rule(full_name)


@lru_cache(None)
def built_in_rule(name: str) -> OpRule:
    """Return the rule of an operator, by its qualified name, as Secateur has it.

    An operator of torch without a rule of its own that torch tags as pointwise has the rule of these.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    is_torchs = name.startswith("aten::")
    packet: Any = getattr(torch.ops.aten, name.removeprefix("aten::"), None) if is_torchs else None
    overloads = packet.overloads() if packet is not None else ()
    is_pointwise = any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in overloads)
    return POINTWISE if is_pointwise else UNKNOWN


def is_borrowed(rule: OpRule) -> bool:
    """Return whether a rule passes labels as an operator of torch does."""
    return any(rule.labels is built_in.labels for built_in in (POINTWISE, *BUILT_IN.values()))


def attribute_rule_of(kind: type[nn.Module]) -> AttributeRule | None:
    """Return the rule for the attributes of a class of modules that repeat the sizes of its tensors."""
    full_name = f"{kind.__module__}.{kind.__qualname__}"
    tables = (*(rule.attributes for rule in registered_rules.values()), MODULE_CLASSES)
    return next((table[key] for table in tables for key in (kind, full_name) if key in table), None)


def resolve_operator(operator: Any) -> tuple[str, tuple[torch._ops.OpOverload, ...]]:
    """Return the qualified name of an operator and its overloads.

    Args:
        operator: what `torch.library.custom_op` returns, an operator of `torch.ops`, or a qualified name.

    Raises:
        OptionError: there is no such operator.
    """
    name = getattr(operator, "_qualname", None) or getattr(operator, "_qualified_op_name", operator)
    name = operator._schema.name if isinstance(operator, torch._ops.OpOverload) else name
    if not isinstance(name, str) or name.count("::") != 1:
        raise OptionError(
            f"operator={operator!r}: give an operator, as `torch.library.custom_op` returns it or `torch.ops` holds "
            'it, or its name with the namespace, such as "mylib::scale"'
        )
    namespace, _, short = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), short.partition(".")[0], None)
    if packet is None:
        raise OptionError(f"there is no operator {name!r}; define it (torch.library.custom_op) before its rule")
    full_name = f"{namespace}::{short.partition('.')[0]}"
    return full_name, tuple(getattr(packet, overload) for overload in packet.overloads())
