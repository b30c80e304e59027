"""Numbers with their nouns, for messages and tables."""

import math


def number_of(count: int, noun: str) -> str:
    """Return a number with its noun, which gets an s unless the number is 1.

    Examples:
        >>> number_of(1, "group"), number_of(1200, "unit")
        ('1 group', '1,200 units')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def times_as_many(factor: float) -> str:
    """Return a factor that is needed, in words, rounded up: 1.04 times as many are more than one time.

    Examples:
        >>> times_as_many(1.04), times_as_many(2)
        ('1.1 times as many', '2.0 times as many')
    """
    return f"{math.ceil(factor * 10) / 10:.1f} times as many"
