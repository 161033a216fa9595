"""Figures: pure functions from arrays and records to matplotlib figures, and a way to save them.

Images are uint8, shape [..., height, width, channel] with 1 or 3 channels, and are drawn with whole
screen pixels for each of theirs. Nothing touches matplotlib's global state; matplotlib is imported
when a figure is drawn.
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
    Cloud,
    aggregate_posterior,
    manifold,
    traversal_frames,
    traversals,
)
from vaeflow.plotting.line import change_of_volume, densities_by_step
from vaeflow.plotting.plane import Density, Samples, WarpedGrid, plane_table, transport_frames

__all__ = [
    "Cloud",
    "Density",
    "Samples",
    "WarpedGrid",
    "aggregate_posterior",
    "change_of_volume",
    "code_usage",
    "densities_by_step",
    "image_grid",
    "image_table",
    "interpolations",
    "manifold",
    "nearest_images",
    "pairwise_marginals",
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
