"""Flat trees that aren't of nested dicts raise an error."""

import numpy as np
import pytest

from vaeflow.sharing.save import flatten, unflatten

ONE = np.ones(1)


def test_pointers_are_those_of_the_standard():
    arrays, empty = flatten({"a": {"b/c": {"~": ONE, "": {}}}})
    assert (list(arrays), empty) == (["/a/b~1c/~0"], ["/a/b~1c/"])
    assert flatten({}) == ({}, [""])
    assert unflatten({}, [""]) == {}


@pytest.mark.parametrize(
    ("arrays", "empty", "message"),
    [
        ({"a": ONE}, [], "'a' is no place in nested dicts"),
        ({"": ONE}, [], "'' is no place in nested dicts"),
        ({"/a": ONE, "/a/b": ONE}, [], "'/a/b' lies within an array"),
        ({"/a": ONE, "/a/b/c": ONE}, [], "'/a/b/c' lies within an array"),
        ({"/a/b": ONE}, ["/a"], "'/a' holds something else already"),
        ({"/a/b": ONE, "/a": ONE}, [], "'/a' holds something else already"),
    ],
)
def test_inconsistent_pointers_raise(arrays, empty, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (its message is compared below)
        unflatten(arrays, empty)
    assert str(error.value) == message
