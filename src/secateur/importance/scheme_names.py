"""Names of sampling schemes, which scores are printed and saved with."""

import re

CONTROLLED_UNTIL_0_12 = re.compile(
    r"gradients at (?P<coalitions>\d{1,9}) coalitions an example(?: and group, (?P<groups>\d{1,9}) groups)?,"
    r" corrected along orders"
)


def controlled_name(coalitions: int, groups: int) -> str:
    """Return the name of the scheme with gradients as a control variate.

    Args:
        coalitions: the number of coalitions for each example and group.
        groups: the number of groups in the game.

    Examples:
        >>> controlled_name(4, 1)
        'controlled: gradients at 4 random coalitions per example, made unbiased by marginal values in random orders'
    """
    of_groups = f" and group ({groups} groups)" if groups > 1 else ""
    gradients = f"gradients at {coalitions} random coalitions per example{of_groups}"
    return f"controlled: {gradients}, made unbiased by marginal values in random orders"


def current_name(name: str) -> str:
    """Return the present name of a scheme that a file names, so that scores of earlier versions can be resumed."""
    match = CONTROLLED_UNTIL_0_12.fullmatch(name)
    return name if match is None else controlled_name(int(match["coalitions"]), int(match["groups"] or 1))
