"""The configuration of Taylor expansions of the loss, of 2017 (activations) and 2019 (weights and gates)."""

from dataclasses import dataclass

from secateur.errors import OptionError
from secateur.importance.config import CriterionConfig, option_field
from secateur.options import Option, one_of, optional
from secateur.options.call_checks import checked_calls

ACTIVATIONS, WEIGHTS, GATES = "activations", "weights", "gates"
ORDER = Option("1 or 2", lambda value: value in (1, 2) and not isinstance(value, bool))
FLAG = Option("True or False", lambda value: isinstance(value, bool))


@checked_calls
@dataclass(frozen=True, kw_only=True)
class Taylor(CriterionConfig):
    """Options of the Taylor expansion of the loss without a unit (Molchanov et al. 2017, 2019).

    Args:
        order: 1, or 2 to use the Hessian's diagonal as well.
        of: the variables of the expansion: the unit's "activations", its incoming "weights", or a factor of 1 on the
            unit, its "gates". By default activations to first order ("taylor"), gates to second
            ("taylor-gates-second").
        signed: for activations, the increase of the loss itself ("taylor-signed") in place of its absolute value.
        gate_position: for gates to first order, "blocks" (behind residual blocks, else behind batch norms, else before
            consumers; "taylor-gates"), "before norms" ("taylor-gates-before-norm"), or "norms" (behind batch norms in
            residual stages, too; "taylor-gates-norms").
        by_example: for gates to first order, squares of each example's derivative in place of each microbatch's
            ("taylor-gates-examples").
        hessian: for gates to second order, "hutchinson" for an estimate from 8 random products per microbatch, or
            "exact" for one backward pass per unit.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> data = [(torch.randn(64, 4), torch.randint(2, (64,)))]
        >>> scores = sc.score(sc.trace(model, data), data, by=sc.Taylor(order=2), progress=False)
        >>> scores.by
        'taylor-gates-second'
    """

    order: int = option_field(1, ORDER)
    of: str | None = option_field(None, optional(one_of(ACTIVATIONS, WEIGHTS, GATES)))
    signed: bool = option_field(False, FLAG)
    gate_position: str = option_field("blocks", one_of("blocks", "before norms", "norms"))
    by_example: bool = option_field(False, FLAG)
    hessian: str = option_field("hutchinson", one_of("hutchinson", "exact"), keyword="estimator")

    def __post_init__(self) -> None:
        if self.of is None:
            object.__setattr__(self, "of", GATES if self.order == 2 else ACTIVATIONS)
        super().__post_init__()
        if self.of == ACTIVATIONS and self.order == 2:
            raise OptionError("order=2 does not apply to of='activations'; take of='gates' or of='weights'")
        if self.by_example and self.gate_position != "blocks":
            raise OptionError(f"gate_position={self.gate_position!r} does not apply to by_example=True; leave one out")

    @property
    def applicable_options(self) -> frozenset[str]:
        """The options of the variables and the order."""
        names = {
            (ACTIVATIONS, 1): {"signed"},
            (GATES, 1): {"gate_position", "by_example"},
            (GATES, 2): {"hessian"},
        }
        return frozenset({"order", "of"} | names.get((str(self.of), self.order), set()))

    @property
    def variant(self) -> str:
        """The variables and the order, for messages."""
        return f"Taylor(of={self.of!r}, order={self.order})"
