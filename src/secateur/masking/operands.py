"""The operands from which consumers read units."""

from typing import Any, Protocol

from torch import Tensor
from torch.fx import Node

from secateur.coupling.consumers import Consumer
from secateur.graph.operators import arguments


class ConsumerReads(Protocol):
    """An operator and the name of the argument from which it reads units."""

    @property
    def node(self) -> Node:
        """The operator."""
        ...

    @property
    def argument(self) -> str:
        """The name of the argument."""
        ...


def operand(consumer: ConsumerReads, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return a consumer's operand among its arguments."""
    names = [argument.name for argument in consumer.node.target._schema.arguments]  # type: ignore[union-attr]
    value: Tensor = kwargs[consumer.argument] if consumer.argument in kwargs else args[names.index(consumer.argument)]
    return value


def operand_node(consumer: Consumer) -> Node:
    """Return the operator, parameter or input whose value a consumer reads."""
    node: Node = arguments(consumer.node)[consumer.argument]
    return node


def recorded_operand(consumer: Consumer) -> Any:
    """Return the operand of a consumer as the export recorded it, with its symbolic shape."""
    return operand_node(consumer).meta["val"]
