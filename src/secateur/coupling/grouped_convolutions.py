"""How the groups of a grouped convolution lose units."""


def goes_in_groups(groups: int, per_group: int) -> bool:
    """Whether whole groups of a convolution go, or the same place of every group, whichever leaves more units.

    Where both leave as many it is places: code that shuffles channels by hand keeps the number of groups as it is.
    """
    return groups > per_group
