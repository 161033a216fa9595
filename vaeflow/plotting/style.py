"""The look of figures, on light and on dark pages: colours, sizes of text, and their use."""

from __future__ import annotations

import dataclasses
import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend


@dataclasses.dataclass(frozen=True)
class Style:
    """The colours and sizes of text of a figure; colours are of the form "#rrggbb".

    Every function of `vaeflow.plotting` that makes a figure takes one, `LIGHT` unless told. Other
    figures have the same look in ``matplotlib.rc_context(style.parameters())``, and
    `dataclasses.replace` changes single values.

    The palettes of `LIGHT` and `DARK` were found by simulated annealing, to keep the colours apart
    for readers with and without protanopia, deuteranopia or tritanopia: by the simulation of
    Machado, Oliveira & Fernandes 2009, "A physiologically-based model for simulation of color
    vision deficiency", any two of the ten are 22 or more apart in CIELAB. Contrasts are those of
    the Web Content Accessibility Guidelines 2.1: of text to the background 4.5 or more, of the
    colours of the palette 3 or more.

    Attributes:
      background: Of figures, and of what no image covers.
      text: Titles, names of axes and labels.
      muted: Numbers along axes, captions, and lines to compare with.
      frame: Lines around panels, and points that stand back.
      grid: Lines across panels.
      palette: Curves and groups, in this order.
      shades: Densities, from 0 to the largest; between them colours are interpolated.
      font_size: Of titles, names of axes and labels, in points.
      small_font_size: Of numbers, captions and legends, in points.
    """

    background: str
    text: str
    muted: str
    frame: str
    grid: str
    palette: tuple[str, ...]
    shades: tuple[str, ...]
    font_size: float = 10.0
    small_font_size: float = 8.5

    def parameters(self) -> dict[str, Any]:
        """Returns the style as matplotlib's rcParams."""
        import cycler

        ticks = {
            f"{axis}tick.{name}": value
            for axis in "xy"
            for name, value in {
                "color": self.frame,
                "labelcolor": self.muted,
                "labelsize": self.small_font_size,
            }.items()
        }
        return ticks | {
            "axes.axisbelow": True,
            "axes.edgecolor": self.frame,
            "axes.facecolor": self.background,
            "axes.labelcolor": self.text,
            "axes.labelsize": self.font_size,
            "axes.linewidth": 0.8,
            "axes.prop_cycle": cycler.cycler(color=self.palette),
            "axes.titlecolor": self.text,
            "axes.titlesize": self.font_size,
            "figure.facecolor": self.background,
            "font.size": self.font_size,
            "grid.color": self.grid,
            "grid.linewidth": 0.8,
            "legend.fontsize": self.small_font_size,
            "legend.frameon": False,
            "legend.labelcolor": self.text,
            "legend.title_fontsize": self.small_font_size,
            "savefig.facecolor": "auto",
            "text.color": self.text,
        }

    def density_map(self) -> Colormap:
        """Returns the shades as matplotlib's colour map."""
        from matplotlib.colors import LinearSegmentedColormap

        return LinearSegmentedColormap.from_list("shades", self.shades)


LIGHT = Style(
    background="#ffffff",
    text="#1b1b1b",
    muted="#5c6168",
    frame="#c3c7cc",
    grid="#e5e7ea",
    palette=(
        *("#1f5a96", "#d1662a", "#14a57f", "#783359", "#907dff"),
        *("#dd2e51", "#401c94", "#ac84b5", "#7b0e01", "#1b1b1b"),
    ),
    shades=("#ffffff", "#aec6e2", "#5b8fc4", "#24568f", "#0b2440"),
)
"""The style of figures on white, the default."""

DARK = Style(
    background="#15181d",
    text="#e6e8eb",
    muted="#a3a9b2",
    frame="#4b525b",
    grid="#2a2f36",
    palette=(
        *("#6cacea", "#e8864a", "#bcf49b", "#88509c", "#eceb53"),
        *("#b33f2b", "#3cf6ff", "#7253d0", "#e0a6a5", "#16726a"),
    ),
    shades=("#15181d", "#17487e", "#3680c4", "#8cbae8", "#eaf5fe"),
)
"""The style of figures on a dark page."""


def new_figure(
    style: Style,
    size: tuple[float, float] | None = None,
    dpi: int = 150,
    layout: str | None = "compressed",
) -> Figure:
    """Returns an empty figure, which a notebook shows as it is.

    Args:
      style: Its look.
      size: Width and height in inches, None for later.
      dpi: Pixels an inch.
      layout: How panels are arranged when it is drawn; see `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=dpi, facecolor=style.background, layout=layout)
    # IPython knows figures only once pyplot is imported, whose state these don't touch.
    figure._repr_png_ = functools.partial(_as_png, figure)
    return figure


def _as_png(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """A figure at its own resolution, and its size on a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return buffer.getvalue(), {"width": width, "height": height}


def style_axes(axes: Axes, style: Style) -> None:
    """Gives axes, and the names that they have by now, the colours and sizes of a style."""
    # By hand: rcParams are global, and ticks read them only when a figure is drawn.
    given = style.parameters()
    axes.set_facecolor(given["axes.facecolor"])
    axes.set_axisbelow(given["axes.axisbelow"])
    for spine in axes.spines.values():
        spine.set_color(given["axes.edgecolor"])
        spine.set_linewidth(given["axes.linewidth"])
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        axis.set_tick_params(
            **{key: given[f"{name}tick.{key}"] for key in ("color", "labelcolor", "labelsize")}
        )
        axis.label.set(color=given["axes.labelcolor"], fontsize=given["axes.labelsize"])
    axes.title.set(color=given["axes.titlecolor"], fontsize=given["axes.titlesize"])


def add_legend(owner: Axes | Figure, style: Style, *arguments: Any, **options: Any) -> Legend:
    """Adds a legend to axes or a figure: without a frame, which would need a place of its own."""
    given = style.parameters()
    names = ("fontsize", "frameon", "labelcolor", "title_fontsize")
    legend = owner.legend(
        *arguments, **{name: given[f"legend.{name}"] for name in names}, **options
    )
    legend.get_title().set_color(style.text)
    return legend


def rgb_bytes(color: str) -> UInt8[np.ndarray, "rgb"]:
    """Returns a colour's red, green and blue, 0 to 255."""
    from matplotlib.colors import to_rgb

    return np.round(255 * np.array(to_rgb(color))).astype(np.uint8)


# CIE XYZ of the primaries of sRGB, IEC 61966-2-1; their sum is the white D65.
_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab_to_rgb(lab: Float[Array | np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Returns the sRGB of colours in CIELAB under D65, the nearest by channel where there is none.

    Args:
      lab: Lightness from 0 to 100, a and b.
    """
    lightness, a, b = np.moveaxis(np.asarray(lab, np.float64), -1, 0)
    y = (lightness + 16) / 116
    roots = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    knee = 6 / 29
    relative = np.where(roots > knee, roots**3, 3 * knee**2 * (roots - 4 / 29))
    linear = np.clip(relative * _XYZ.sum(axis=1) @ np.linalg.inv(_XYZ).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
