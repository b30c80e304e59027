"""Numbers with their nouns, for messages and tables."""


def number_of(count: int, noun: str) -> str:
    """Return a number with its noun, which gets an s unless the number is 1.

    Examples:
        >>> number_of(1, "group"), number_of(1200, "unit")
        ('1 group', '1,200 units')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
