"""Options: the values that arguments of public functions may have, and errors that name the remedy for others."""

from secateur.options.option import (
    Option,
    check_name,
    is_block_shape,
    is_real,
    is_round,
    is_whole,
    kind_text,
    one_of,
    optional,
    short_text,
    whole_from,
)

__all__ = [
    "Option",
    "check_name",
    "is_block_shape",
    "is_real",
    "is_round",
    "is_whole",
    "kind_text",
    "one_of",
    "optional",
    "short_text",
    "whole_from",
]
