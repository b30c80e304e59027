"""Exceptions of the user's code as text."""

from secateur.utils.failure_text import failure_text


def raised() -> BaseException:
    try:
        raise NotImplementedError  # no text
    except NotImplementedError as failure:
        return failure


def test_an_exception_without_text_is_described_by_the_line_that_raised_it() -> None:
    text = failure_text(raised())
    assert text.startswith("NotImplementedError in line ")
    assert text.endswith(" of test_failure_text.py: raise NotImplementedError  # no text")


def test_an_exception_that_was_never_raised_and_has_no_text_is_its_class() -> None:
    assert failure_text(KeyError()) == "KeyError"
    assert failure_text(ValueError("no such layer")) == "ValueError: no such layer"
