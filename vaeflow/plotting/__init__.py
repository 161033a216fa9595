"""Figures: pure functions from arrays and records to matplotlib figures, and a way to save them.

Images are uint8, shape [..., height, width, channel] with 1 or 3 channels, and are drawn with whole
screen pixels for each of theirs. Nothing touches matplotlib's global state; matplotlib is imported
when a figure is drawn.
"""

from vaeflow.plotting.animation import save_animation
from vaeflow.plotting.clouds import Cloud, aggregate_posterior
from vaeflow.plotting.code_usage import code_usage
from vaeflow.plotting.curves import training_curve
from vaeflow.plotting.files import save_figure
from vaeflow.plotting.images import (
    image_grid,
    image_table,
    interpolations,
    nearest_images,
    reconstructions,
    temperature_samples,
)
from vaeflow.plotting.line import change_of_volume, densities_by_step
from vaeflow.plotting.manifold import latent_grid, manifold, normal_quantiles
from vaeflow.plotting.pairs import pairwise_marginals
from vaeflow.plotting.plane import (
    Density,
    Samples,
    WarpedGrid,
    grid_lines,
    plane_points,
    plane_table,
)
from vaeflow.plotting.translations import translations
from vaeflow.plotting.transport import noise_colors, transport_frames, unexchanged
from vaeflow.plotting.traversals import traversal_frames, traversals

__all__ = [
    "Cloud",
    "Density",
    "Samples",
    "WarpedGrid",
    "aggregate_posterior",
    "change_of_volume",
    "code_usage",
    "densities_by_step",
    "grid_lines",
    "image_grid",
    "image_table",
    "interpolations",
    "latent_grid",
    "manifold",
    "nearest_images",
    "noise_colors",
    "normal_quantiles",
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
    "unexchanged",
]
