"""Units of grouped convolutions: whole groups, or the same place of every group."""


def removes_whole_groups(groups: int, per_group: int) -> bool:
    """Return whether whole groups of a convolution are removed, or the same place of every group.

    Whichever leaves more units; where both leave as many it is places, since code that shuffles channels by hand keeps
    the number of groups as it is.

    Args:
        groups: the number of groups.
        per_group: the number of input channels of each.
    """
    return groups > per_group
