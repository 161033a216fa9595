"""Figures of latents, read back from what is in the axes."""

import matplotlib.colors
import numpy as np
import pytest

from tests.pixels import render
from vaeflow import plotting


def points(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2))


def colors_of(axes) -> list[str]:
    return [matplotlib.colors.to_hex(color) for color in axes.collections[0].get_facecolors()]


def legend_of(axes) -> dict[str, str]:
    legend = axes.get_legend()
    return {
        text.get_text(): matplotlib.colors.to_hex(handle.get_color())
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def test_points_have_the_colour_that_the_legend_gives_their_group():
    groups = np.arange(30) % 10
    panel = plotting.LatentScatter(points(30), groups, title="by label", names=("z3", "z1"))
    figure = plotting.aggregate_posterior([panel, panel])
    for axes in figure.axes:
        legend = legend_of(axes)
        assert list(legend) == [str(group) for group in range(10)]
        assert len(set(legend.values())) == 10
        assert colors_of(axes) == [legend[str(group)] for group in groups]
        assert axes.get_legend().get_title().get_text() == "label"
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("z3", "z1")
        np.testing.assert_allclose(axes.collections[0].get_offsets(), panel.points)


def test_the_smallest_of_many_groups_are_grey():
    groups = np.concatenate([np.arange(100, 110), np.arange(100, 110), [3, 7, 9]])
    figure = plotting.aggregate_posterior([plotting.LatentScatter(points(23), groups, "component")])
    legend = legend_of(figure.axes[0])
    assert list(legend) == [*map(str, range(100, 110)), "3 others"]
    assert colors_of(figure.axes[0])[-3:] == [legend["3 others"]] * 3


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_cut_off(count):
    panel = plotting.LatentScatter(points(500), np.arange(500))
    canvas = render(plotting.aggregate_posterior([panel] * count))
    assert min(canvas[:, :3].min(), canvas[:, -3:].min()) == 255
    assert min(canvas[:3].min(), canvas[-3:].min()) == 255


def test_ellipses_reach_to_two_deviations_of_their_group():
    covariances = np.array([[[4.0, 0.0], [0.0, 1.0]], [[1.0, 0.9], [0.9, 1.0]]])
    means = np.array([[1.0, 2.0], [0.0, 0.0]])
    panel = plotting.LatentScatter(
        points(10), np.arange(10) % 2, means=means, covariances=covariances
    )
    axes = plotting.aggregate_posterior([panel]).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert len(lines) == 4  # each over a white one
    for line, mean, covariance in zip(lines[1::2], means, covariances, strict=True):
        apart = np.stack(line.get_data(), axis=-1) - mean
        squared = np.einsum("pi,ij,pj->p", apart, np.linalg.inv(covariance), apart)
        np.testing.assert_allclose(squared, 4.0)
    assert [line.get_color() for line in lines[1::2]] == list(legend_of(axes).values())


def test_far_points_and_nan_do_not_shrink_the_rest():
    z = points(5000)
    z[0], z[1] = 1e6, np.nan
    axes = plotting.aggregate_posterior([plotting.LatentScatter(z)]).axes[0]
    assert axes.get_legend() is None
    assert max(map(abs, (*axes.get_xlim(), *axes.get_ylim()))) < 6


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "at least one, got none"),
        ([plotting.LatentScatter(np.zeros((3, 4)))], r"\[example, 2\], none empty, got \(3, 4\)"),
        (
            [plotting.LatentScatter(np.zeros((3, 2)), np.zeros(4, int))],
            r"3 numbers, got shape \(4,\)",
        ),
        (
            [plotting.LatentScatter(np.zeros((3, 2)), means=np.zeros((1, 2)))],
            r"\[group, 2, 2\], got \(1, 2\) and \(\)",
        ),
    ],
)
def test_mismatched_arrays_raise(panels, message):
    with pytest.raises(ValueError, match=message):
        plotting.aggregate_posterior(panels)
