"""The cost and the source of each built-in criterion; docs/criteria.md says more."""

from collections.abc import Mapping
from typing import NamedTuple


class CriterionFacts(NamedTuple):
    """Facts about a criterion.

    Args:
        passes: what it takes, in passes over the data.
        source: the publication that it is from.
        has_minibatches: whether it squares means over minibatches, which are the batches of the data.
    """

    passes: str
    source: str
    has_minibatches: bool = False


NONE, BOTH = "none", "1 forward, 1 backward"
COALITIONS = "1 forward per coalition, from the group on"
UNITS = "1 forward per unit, from the group on"
MOLCHANOV_2019, MOLCHANOV_2017 = "Molchanov et al. 2019", "Molchanov et al. 2017"
FACTS: Mapping[str, CriterionFacts] = {
    "obs": CriterionFacts("1 forward, 2 backward", "Hassibi, Stork 1993; Dong et al. 2017; Wang et al. 2019"),
    "shapley": CriterionFacts(COALITIONS, "Ancona, Öztireli, Gross 2020"),
    "banzhaf": CriterionFacts(COALITIONS, "Banzhaf 1965"),
    "owen": CriterionFacts("1 forward per coalition", "Owen 1977"),
    "expected-gradients": CriterionFacts("4 forward, 4 backward", "Owen 1972; Okhrati, Lipani 2021"),
    "greedy": CriterionFacts("n (n + 1) / 2 forward for n units, from the group on", "backward elimination"),
    "leave-one-out": CriterionFacts(UNITS, "none"),
    "taylor-gates": CriterionFacts(BOTH, MOLCHANOV_2019, has_minibatches=True),
    "taylor-gates-examples": CriterionFacts(BOTH, MOLCHANOV_2019),
    "taylor-gates-before-norm": CriterionFacts(BOTH, MOLCHANOV_2019, has_minibatches=True),
    "taylor-gates-norms": CriterionFacts(BOTH, "none: ours", has_minibatches=True),
    "taylor-gates-second": CriterionFacts(
        "1 forward, 9 backward; exact: 1 backward per unit", MOLCHANOV_2019, has_minibatches=True
    ),
    "taylor-weights": CriterionFacts(BOTH, MOLCHANOV_2019, has_minibatches=True),
    "taylor-weights-second": CriterionFacts("1 forward, 2 backward", MOLCHANOV_2019, has_minibatches=True),
    "oracle": CriterionFacts(UNITS, MOLCHANOV_2019),
    "oracle-absolute": CriterionFacts(UNITS, MOLCHANOV_2017),
    "integrated-gradients": CriterionFacts(
        "16 forward, 16 backward for each group", "Sundararajan et al. 2017; Dhamdhere et al. 2019"
    ),
    "taylor": CriterionFacts(BOTH, MOLCHANOV_2017),
    "taylor-signed": CriterionFacts(BOTH, MOLCHANOV_2017),
    "sensitivity": CriterionFacts(BOTH, "Mittal et al. 2018"),
    "apoz": CriterionFacts("1 forward", "Hu et al. 2016"),
    "l1": CriterionFacts(NONE, "Li et al. 2017"),
    "l2": CriterionFacts(NONE, "Li et al. 2017"),
    "fpgm": CriterionFacts(NONE, "He et al. 2019"),
    "batchnorm-scale": CriterionFacts(NONE, "Liu et al. 2017"),
    "lean": CriterionFacts(NONE, "after Schoonhoven et al. 2020"),
    "random": CriterionFacts(NONE, "none"),
}
UNKNOWN = CriterionFacts("unknown", "your own")
"""The facts of a criterion that a user registered."""
