"""Histograms of the use of codes."""

import numpy as np
import pytest

from vaeflow import plotting


def test_shares_fall_from_the_most_used_code_on():
    counts = {"top": np.array([1, 0, 3, 4]), "bottom": np.array([5, 5])}
    figure = plotting.code_usage(counts)
    first, second = figure.axes
    title = first.get_title(loc="left")
    # exp(-(1/8 log 1/8 + 3/8 log 3/8 + 1/2 log 1/2)) = 2.65
    assert title == "top: 75% of 4 codes used, perplexity 3"
    assert second.get_title(loc="left") == "bottom: 100% of 2 codes used, perplexity 2"
    (area,) = first.collections
    places, heights = area.get_paths()[0].vertices.T
    assert set(np.round(heights, 6)) == {0.5, 0.375, 0.125, 0.0}
    tops = [heights[(places >= code) & (places < code + 1)].max() for code in range(4)]
    assert tops == sorted(tops, reverse=True)
    assert first.lines[0].get_ydata()[0] == 0.25


def test_no_codebook_raises():
    with pytest.raises(ValueError, match="at least one codebook, got none"):
        plotting.code_usage({})


def test_counts_of_several_codebooks_at_once_raise():
    with pytest.raises(ValueError, match=r"counts must be \[code\], got shape \(2, 3\) of top"):
        plotting.code_usage({"top": np.ones((2, 3), int)})
