"""Figures: pure functions from arrays and records to matplotlib figures, and writers of files.

Images are uint8, shape [..., height, width, channel] with 1 or 3 channels; a pixel is plotted as a
whole number of screen pixels. Colours and sizes of text come from a `Style`, `LIGHT` or `DARK`. No
function touches matplotlib's global state; matplotlib is imported by the first figure.
"""

from vaeflow.plotting.corner import pairwise_marginals
from vaeflow.plotting.curves import code_usage, training_curve
from vaeflow.plotting.files import save_animation, save_figure
from vaeflow.plotting.images import (
    image_grid,
    image_table,
    interpolations,
    nearest_images,
    reconstructions,
    temperature_samples,
    translations,
)
from vaeflow.plotting.latents import (
    LatentScatter,
    aggregate_posterior,
    latent_manifold,
    traversal_frames,
    traversals,
)
from vaeflow.plotting.line import change_of_variables, densities_by_step
from vaeflow.plotting.plane import (
    Density,
    Samples,
    WarpedGrid,
    grid_lines,
    noise_colors,
    plane_points,
    plane_table,
    transport_frames,
)
from vaeflow.plotting.style import DARK, LIGHT, Style

__all__ = [
    "DARK",
    "LIGHT",
    "Density",
    "LatentScatter",
    "Samples",
    "Style",
    "WarpedGrid",
    "aggregate_posterior",
    "change_of_variables",
    "code_usage",
    "densities_by_step",
    "grid_lines",
    "image_grid",
    "image_table",
    "interpolations",
    "latent_manifold",
    "nearest_images",
    "noise_colors",
    "pairwise_marginals",
    "plane_points",
    "plane_table",
    "reconstructions",
    "save_animation",
    "save_figure",
    "temperature_samples",
    "training_curve",
    "translations",
    "transport_frames",
    "traversal_frames",
    "traversals",
]
