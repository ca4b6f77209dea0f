"""Errors as they are printed."""

from mainspring.errors import DataError


def test_an_error_is_four_lines_whatever_a_library_says() -> None:
    error = DataError("it is\nbroken", code="MS-2999", why="\narray=[\n1\n2]", origin="a.py:1", fix="mend it")
    assert error.lines().splitlines() == [
        "error MS-2999  it is ...",
        "  why    array=[ ...",
        "  from   a.py:1",
        "  fix    mend it",
    ]
    assert error.as_dict()["why"] == "\narray=[\n1\n2]"
