"""Pairs of columns, of data and of samples."""

import numpy as np
import pytest

from vaeflow import plotting

DATA = np.random.default_rng(0).normal(size=(300, 3)) * [1, 100, 0.01]
SAMPLES = 2 * np.random.default_rng(1).normal(size=(2500, 3)) * [1, 100, 0.01]


def panels(figure) -> np.ndarray:
    return np.array(figure.axes[:9], dtype=object).reshape(3, 3)


def test_data_are_below_the_diagonal_and_samples_above():
    axes = panels(plotting.pairwise_marginals(DATA, SAMPLES))
    for (row, column), panel in np.ndenumerate(axes):
        if row == column:
            continue
        (points,) = panel.lines
        expected = DATA if row > column else SAMPLES[:2000]
        np.testing.assert_array_equal(points.get_xydata(), expected[:, [column, row]])
        assert panel.get_ylim() == axes[row, (row + 1) % 3].get_ylim()


def test_axes_show_the_middle_of_the_data_and_a_margin():
    data = DATA.copy()
    data[7] = [1e6, np.nan_to_num(np.inf), -1e6]
    axes = panels(plotting.pairwise_marginals(data, SAMPLES))
    for column, unit in enumerate([1, 100, 0.01]):
        limits = axes[2, column].get_xlim() if column < 2 else axes[0, 2].get_xlim()
        assert -4 * unit < limits[0] < -2 * unit < 2 * unit < limits[1] < 4 * unit


def test_histograms_are_densities_of_all_rows():
    axes = panels(plotting.pairwise_marginals(DATA, SAMPLES))
    for column in range(3):
        drawn = [patch.get_data() for patch in axes[column, column].patches]
        areas = [np.sum(values * np.diff(edges)) for values, edges, _ in drawn]
        assert areas[0] > 0.98
        low, high = axes[column, column].get_xlim()
        within = np.mean((SAMPLES[:, column] >= low) & (SAMPLES[:, column] <= high))
        np.testing.assert_allclose(areas[1], within)


def test_labels_stand_at_the_left_and_below():
    figure = plotting.pairwise_marginals(DATA, SAMPLES, ["a", "b", "c"])
    axes = panels(figure)
    assert [panel.get_ylabel() for panel in axes[:, 0]] == ["a", "b", "c"]
    assert [panel.get_xlabel() for panel in axes[2]] == ["a", "b", "c"]
    assert not any(panel.get_xlabel() or panel.get_ylabel() for panel in axes[:2, 1:].flat)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["data", "samples"]
    by_number = panels(plotting.pairwise_marginals(DATA, SAMPLES))
    assert [panel.get_ylabel() for panel in by_number[:, 0]] == ["column 0", "column 1", "column 2"]


def test_samples_far_off_and_a_column_that_is_constant_are_drawn():
    data = DATA.copy()
    data[:, 1] = 5.0
    figure = plotting.pairwise_marginals(data, SAMPLES + 1e9)
    figure.draw_without_rendering()
    assert panels(figure)[2, 1].get_xlim() == (4.5, 5.5)


@pytest.mark.parametrize(
    ("data", "samples", "labels", "message"),
    [
        (DATA, SAMPLES[:, :2], (), r"tables of equal columns, got \(300, 3\), \(2500, 2\)"),
        (DATA[:, 0], SAMPLES, (), "tables of equal columns"),
        (DATA[:, :1], SAMPLES[:, :1], (), r"two columns or more, got \(300, 1\)"),
        (DATA[:0], SAMPLES, (), r"must have rows .* got \(0, 3\)"),
        (DATA, SAMPLES, ["a"], "labels must name 3 columns, got 1"),
    ],
)
def test_unfit_tables_raise(data, samples, labels, message):
    with pytest.raises(ValueError, match=message):
        plotting.pairwise_marginals(data, samples, labels)
