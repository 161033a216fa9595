"""How a flow carries noise to data, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, UInt8

from vaeflow.plotting.plane import draw_samples, frame_plane

_PANEL = 2.0  # inches
_DPI = 100


def noise_colors(noise: Float[Array | np.ndarray, "point two"]) -> Float[np.ndarray, "point rgb"]:
    """Gives points a colour by where they lie in standard normal noise.

    The hue is the angle around 0; colours are the stronger the further out, and dark grey at 0.
    """
    from matplotlib.colors import hsv_to_rgb

    x, y = np.asarray(noise, np.float64).T
    outside = 1 - np.exp(-(x**2 + y**2) / 2)  # the share of the noise that lies further in
    hue = np.arctan2(y, x) / (2 * np.pi) % 1
    return hsv_to_rgb(np.stack([hue, outside, 0.3 + 0.6 * outside], axis=-1))


def unexchanged(
    states: Float[Array | np.ndarray, "step point two"],
) -> Float[np.ndarray, "step point two"]:
    """Undoes the exchanges of the two axes that steps of a flow end with, for drawing.

    From the last state back, the axes of a state are exchanged where that brings its points nearer
    to those of the state after it. A step that reverses the entries would otherwise be seen to
    mirror the plane.
    """
    states = np.array(states)
    for step in range(len(states) - 2, -1, -1):
        kept, exchanged = states[step], states[step][:, ::-1]
        distances = [np.nanmean((state - states[step + 1]) ** 2) for state in (kept, exchanged)]
        if distances[1] < distances[0]:
            states[step] = exchanged
    return states


def transport_frames(
    paths: Sequence[Float[Array | np.ndarray, "step point two"]],
    bound: float,
    titles: Sequence[str],
    between: int = 8,
) -> UInt8[np.ndarray, "frame height width rgb"]:
    """Draws how points move, as frames of an animation with a panel for each path.

    Points keep the colour of their place in the noise. Between two states they go straight, slowly
    at both ends.

    Args:
      paths: Points after each step, noise first; all of one number of steps.
      bound: Half the side of the square that is shown.
      titles: One for each path.
      between: Number of frames from one state to the next.

    Raises:
      ValueError: If there is no path, paths differ in their number of steps, or titles don't fit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = [np.asarray(path) for path in paths]
    lengths = {len(path) for path in paths}
    if len(lengths) != 1 or len(titles) != len(paths) or between < 1:
        raise ValueError(
            f"paths must be some of one length, with a title each, and between at least 1, got "
            f"lengths {sorted(lengths)}, {len(paths)} paths, {len(titles)} titles and {between}"
        )
    columns = min(len(paths), 3)
    rows = -(-len(paths) // columns)
    size = (_PANEL * columns, (_PANEL + 0.2) * rows)
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    dots = []
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, path, title in zip(axes, paths, titles, strict=False):
        frame_plane(panel, bound)
        panel.set_title(title, fontsize=9)
        dots.append(draw_samples(panel, path[0], noise_colors(path[0]), _PANEL))
    for panel in axes[len(paths) :]:
        panel.set_axis_off()
    # Laid out once, so that nothing shifts between frames.
    for _ in range(2):
        canvas.draw()
    figure.set_layout_engine("none")
    frames = []
    for place in _places(len(paths[0]), between):
        step = min(int(place), len(paths[0]) - 2) if len(paths[0]) > 1 else 0
        for drawn, path in zip(dots, paths, strict=True):
            after = path[min(step + 1, len(path) - 1)]
            drawn.set_offsets(path[step] + (place - step) * (after - path[step]))
        canvas.draw()
        frames.append(np.array(canvas.buffer_rgba())[..., :3])
    return np.stack(frames)


def _places(states: int, between: int) -> np.ndarray:
    """Places between the states: whole at each state, and slow around it."""
    share = np.arange(between) / between
    share = share**2 * (3 - 2 * share)
    return np.append((np.arange(states - 1)[:, None] + share).ravel(), states - 1)
