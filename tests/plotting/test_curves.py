"""Training curves."""

import numpy as np
import pytest

from vaeflow import plotting

RECORDS = [
    {"step": 1, "bits_per_dim": 9.0},
    {"step": 50, "bits_per_dim": 7.0, "validation_bits_per_dim": 7.5},
    {"step": 100, "bits_per_dim": None, "validation_bits_per_dim": 7.25},
    {"step": 150, "bits_per_dim": float("nan"), "validation_bits_per_dim": 7.0},
]
METRICS = {"training": "bits_per_dim", "validation": "validation_bits_per_dim"}


def test_curves_hold_the_finite_values_by_step():
    (axes,) = plotting.training_curve(RECORDS, METRICS).axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert curves == {
        "training": [[1, 9.0], [50, 7.0]],
        "validation": [[50, 7.5], [100, 7.25], [150, 7.0]],
    }
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    assert axes.get_ylabel() == "bits/dim"
    axes.figure.draw_without_rendering()
    # The legend covers no curve.
    assert axes.get_legend().get_window_extent().y0 >= axes.bbox.y1


def test_expected_values_are_lines_whose_names_keep_apart():
    expected = {"linear predictor": 6.51, "another": 6.5, "diagonal Gaussian": 7.55}
    figure = plotting.training_curve(RECORDS, METRICS, expected)
    (axes,) = figure.axes
    heights = [line.get_ydata() for line in axes.lines[2:]]
    np.testing.assert_allclose(heights, [[6.5, 6.5], [6.51, 6.51], [7.55, 7.55]])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts][1] == "linear predictor 6.51"
    assert boxes[0].y1 <= boxes[1].y0 < boxes[1].y1 <= boxes[2].y0
    # Named within the figure.
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_the_start_does_not_flatten_the_rest():
    records = [{"step": 1, "loss": 500.0}] + [
        {"step": step, "loss": 5 - step / 100} for step in range(20, 101, 20)
    ]
    (axes,) = plotting.training_curve(records, {"training": "loss"}, label="nats").axes
    low, high = axes.get_ylim()
    assert 3.9 < low < 4.0 < 4.8 < high < 4.9


def test_long_curves_are_drawn_with_their_running_mean():
    values = np.random.default_rng(0).normal(size=500)
    records = [{"step": step, "loss": value} for step, value in enumerate(values, start=1)]
    (axes,) = plotting.training_curve(records, {"training": "loss"}).axes
    raw, mean = axes.lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    steps, smooth = mean.get_data()
    np.testing.assert_allclose(smooth, np.convolve(values, np.full(10, 0.1), "valid"))
    assert (steps[0], steps[-1]) == (5.5, 495.5)


def test_a_single_record_is_drawn():
    plotting.training_curve(RECORDS[:1], METRICS).draw_without_rendering()


def test_records_without_the_metrics_raise():
    with pytest.raises(ValueError, match=r"metrics must name one .* got \['elbo'\]"):
        plotting.training_curve(RECORDS, {"training": "elbo"})
