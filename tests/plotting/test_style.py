"""Styles of figures: contrasts, colours that keep apart, and that figures have no others."""

import dataclasses
import inspect
import io
import pickle

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

from tests.colorimetry import VISIONS, contrasts, lab, rgb, smallest_distance
from tests.pixels import random_images, render
from vaeflow import plotting
from vaeflow.plotting.plane import noise_colors
from vaeflow.plotting.style import lab_to_rgb

STYLES = {"light": plotting.LIGHT, "dark": plotting.DARK}

both = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)


def test_measures_have_published_values():
    red, white = rgb("#ff0000", "#ffffff")
    np.testing.assert_allclose(lab(red), [53.24, 80.09, 67.20], atol=0.1)
    np.testing.assert_allclose(lab(white, "deuteranopia"), [100, 0, 0], atol=0.1)
    assert contrasts(rgb("#000000"), "#ffffff") == pytest.approx(21)
    assert contrasts(rgb("#767676"), "#ffffff") == pytest.approx(4.54, abs=0.01)
    # Red and green of equal lightness, which only normal vision tells apart.
    reds = rgb("#c0504d", "#7f8a4d")
    assert smallest_distance(reds, "normal") > 45 > 20 > smallest_distance(reds, "deuteranopia")


@both
def test_text_and_curves_stand_out_from_the_background(style):
    assert contrasts(rgb(style.text), style.background) > 10
    assert contrasts(rgb(style.muted), style.background) >= 4.5
    assert contrasts(rgb(*style.palette), style.background).min() >= 3


@both
@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_colours_of_the_palette_keep_apart(style, vision):
    assert len(style.palette) == 10
    assert smallest_distance(rgb(*style.palette), vision) >= 22


@both
def test_shades_go_evenly_from_the_background_to_the_strongest(style):
    assert style.shades[0] == style.background
    lightness = lab(rgb(*style.shades))[:, 0]
    steps = np.diff(lightness)
    assert abs(lightness[-1] - lightness[0]) > 80
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)


def test_lab_is_inverted():
    colors = rgb("#1f5a96", "#d1662a", "#000000", "#808080", "#14a57f")
    np.testing.assert_allclose(lab_to_rgb(lab(colors)), colors, atol=2e-3)
    assert (lab_to_rgb(np.array([50.0, -120.0, 0.0])) >= 0).all()


def test_places_in_the_noise_are_told_apart_by_everyone_on_both_backgrounds():
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rim = noise_colors(4 * np.stack([np.cos(angles), np.sin(angles)], axis=-1))
    for style in STYLES.values():
        assert contrasts(rim, style.background).min() > 2.4
    for vision in VISIONS:
        seen = lab(rim, vision)
        assert np.linalg.norm(seen[:12] - seen[12:], axis=-1).min() > 15
    # Even steps around the rim.
    steps = np.linalg.norm(lab(rim) - np.roll(lab(rim), 1, axis=0), axis=-1)
    assert steps.max() < 2.5 * steps.min()


@both
def test_parameters_give_other_figures_the_same_look(style):
    records = [{"step": step, "a": step, "b": -step} for step in (1, 2)]
    (ours,) = plotting.training_curve(records, {"a": "a", "b": "b"}, style=style).axes
    with mpl.rc_context(style.parameters()):
        figure = Figure()
        theirs = figure.add_subplot()
        theirs.plot([1, 2], [1, 2], label="a")
        theirs.plot([1, 2], [-1, -2], label="b")
        theirs.set(xlabel="step", ylabel="bits/dim", title="title")
        theirs.legend()
        figure.draw_without_rendering()
    ours.figure.draw_without_rendering()

    def look(axes):
        tick = axes.yaxis.get_major_ticks()[0]
        labels = axes.xaxis.label, tick.label1, axes.get_legend().get_texts()[0]
        colors = [
            axes.figure.get_facecolor(),
            axes.get_facecolor(),
            axes.spines["left"].get_edgecolor(),
            tick.tick1line.get_color(),
            *(artist.get_color() for artist in (*axes.lines, *labels)),
        ]
        sizes = [label.get_fontsize() for label in labels]
        others = axes.spines["left"].get_linewidth(), axes.get_legend().get_frame_on()
        return [*map(matplotlib.colors.to_hex, colors), *sizes, *others]

    assert look(ours) == look(theirs)
    assert ours.xaxis.label.get_color() == style.text
    assert ours.get_xticklabels()[0].get_color() == style.muted
    ends = [matplotlib.colors.to_hex(style.density_map()(share)) for share in (0.0, 1.0)]
    assert ends == [style.shades[0], style.shades[-1]]


IMAGES = random_images(3, 4, 8, 8, 1)
X = np.linspace(-2, 2, 41)
POINTS = np.random.default_rng(0).normal(size=(60, 2))
PAIR = X, np.exp(-(X**2))
PANELS = [
    [plotting.Density(np.ones(16), "caption"), plotting.Samples(POINTS)],
    [plotting.WarpedGrid(np.stack([PAIR, PAIR]).swapaxes(1, 2)), plotting.Samples(POINTS)],
]
RECORDS = [{"step": step, "loss": 1 / step, "other": 1.0} for step in range(1, 150)]
SCATTER = plotting.LatentScatter(
    POINTS, np.arange(60) % 13, means=POINTS[:3], covariances=np.stack([np.eye(2)] * 3)
)

# Arguments of all public functions that make figures.
MADE = {
    "aggregate_posterior": ([SCATTER, plotting.LatentScatter(POINTS)],),
    "change_of_variables": (PAIR, PAIR, np.array([-1.0, 0, 1]), PAIR),
    "code_usage": ({"top": np.arange(5), "bottom": np.arange(5)},),
    "densities_by_step": ([PAIR] * 6, list("abcdef"), PAIR),
    "image_grid": (IMAGES[0], 3),
    "image_table": (IMAGES, list("abc"), list("abcd")),
    "interpolations": (IMAGES, list("abc")),
    "latent_manifold": (IMAGES, [-1, 0, 1, 2], [0, 1, 2]),
    "nearest_images": (IMAGES[:, 0], IMAGES[:, 1:]),
    "pairwise_marginals": (POINTS, POINTS),
    "plane_table": (PANELS, 2.0, ["a", "b"], ["c", "d"]),
    "reconstructions": (IMAGES[0], IMAGES[1]),
    "temperature_samples": (IMAGES, [0.5, 0.7, 1.0]),
    "training_curve": (RECORDS, {"a": "loss", "b": "other"}, {"known": 0.5}),
    "translations": (IMAGES[:, 0], IMAGES[:, 1:], IMAGES[:, 0]),
    "transport_frames": ([np.stack([POINTS, POINTS])], 2.0, ["a"], 1),
    "traversal_frames": (random_images(6, 2, 8, 8, 1), list("abcdef")),
    "traversals": (IMAGES, list("abc"), [1, 2, 3], [1, 2, 3, 4]),
}

# No colour is that of any other style, or a shade of grey.
ODD = plotting.Style(
    background="#210403",
    text="#f0e1d2",
    muted="#c4b6a9",
    frame="#91531f",
    grid="#4f2a1d",
    palette=tuple(f"#{level:02x}{255 - level:02x}40" for level in range(30, 250, 22)),
    shades=("#210403", "#f0e1d3"),
    font_size=11.5,
    small_font_size=9.5,
)


def test_every_function_that_makes_a_figure_takes_a_style_last():
    functions = {
        name: value
        for name in plotting.__all__
        if inspect.isfunction(value := getattr(plotting, name))
    }
    of_values = {"grid_lines", "noise_colors", "plane_points"}
    assert functions.keys() - MADE.keys() == {"save_animation", "save_figure", *of_values}
    for name in MADE:
        last = [*inspect.signature(functions[name]).parameters.values()][-1]
        assert last.name == "style", name
        assert last.kind is inspect.Parameter.KEYWORD_ONLY
        assert last.default is plotting.LIGHT


def colors_of(artist) -> list:
    """Colours that an artist shows."""
    if isinstance(artist, Text):
        return [artist.get_color()] if artist.get_text() else []
    if isinstance(artist, Line2D):
        marked = artist.get_marker() not in ("None", None, "")
        return [artist.get_color(), *([artist.get_markerfacecolor()] * marked)]
    if isinstance(artist, Collection):
        return [*artist.get_facecolors()]
    if isinstance(artist, Patch):
        return [artist.get_facecolor() if artist.get_fill() else artist.get_edgecolor()]
    return []


def shown(artist):
    """All artists that a figure draws."""
    if not artist.get_visible():
        return
    yield artist
    hidden = []
    if isinstance(artist, Legend) and not artist.get_frame_on():
        hidden = [artist.get_frame()]
    if isinstance(artist, Axes) and not artist.axison:
        hidden = [artist.patch, *artist.spines.values(), artist.xaxis, artist.yaxis]
    for child in artist.get_children():
        if child not in hidden:
            yield from shown(child)


@pytest.mark.parametrize("name", MADE)
def test_figures_have_the_colours_and_sizes_of_their_style_alone(name):
    before = dict(mpl.rcParams)
    figure = getattr(plotting, name)(*MADE[name], style=ODD)
    background = np.round(255 * rgb(ODD.background)[0])
    canvas = figure[0] if isinstance(figure, np.ndarray) else render(figure)
    for corner in (canvas[0, 0], canvas[-1, 0], canvas[0, -1], canvas[-1, -1]):
        np.testing.assert_array_equal(corner, background)
    # The images have no white, and neither have the gaps between them.
    assert canvas.min(axis=-1).max() < 255
    if isinstance(figure, np.ndarray):
        return
    allowed = {
        value if isinstance(value, str) else None for value in dataclasses.astuple(ODD)
    } | set(ODD.palette)
    for artist in shown(figure):
        for color in colors_of(artist):
            if matplotlib.colors.to_rgba(color)[3]:
                assert matplotlib.colors.to_hex(color) in allowed, artist
        if isinstance(artist, Text) and artist.get_text():
            assert artist.get_fontsize() in (11.5, 9.5), artist
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", MADE)
def test_text_is_large_enough_and_within_the_figure(name):
    for style in STYLES.values():
        assert min(style.font_size, style.small_font_size) >= 8
    figure = getattr(plotting, name)(*MADE[name])
    if isinstance(figure, np.ndarray):
        return
    render(figure)
    for axes in figure.axes:
        written = [axes.title, axes.xaxis, axes.yaxis, axes.get_legend(), *axes.texts]
        for artist in (*written, *figure.texts, *figure.legends):
            box = artist and artist.get_tightbbox()  # None where nothing is drawn
            if box and box.width > 0:
                assert -1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, artist
                assert -1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1, artist


def test_notebooks_show_figures_of_which_pyplot_knows_nothing():
    figure = plotting.training_curve(
        [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], {"loss": "loss"}
    )
    png, size = figure._repr_png_()
    image = Image.open(io.BytesIO(png))
    assert image.size == tuple(round(150 * inches) for inches in figure.get_size_inches())
    assert size == {"width": 720, "height": 384}
    again = pickle.loads(pickle.dumps(figure))
    assert again._repr_png_()[1] == size
