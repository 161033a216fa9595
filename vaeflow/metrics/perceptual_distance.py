"""Distances of images by what the layers of a network make of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

Maps = Sequence[Float[Array | np.ndarray, "*batch height width feature"]]


def perceptual_distance(first: Maps, second: Maps) -> Float[np.ndarray, "*batch"]:
    r"""Computes the distance of images whose feature maps, of several layers, are given.

    .. math:: d = \sum_l \frac{1}{H_l W_l} \sum_{h, w} \|u^l_{hw} - v^l_{hw}\|^2

    for the vectors u and v of the two images at each position of layer l, scaled to length 1; a
    vector of zeros, as of an edge that is nowhere seen, stays one. So a layer adds from 0 to 4, or
    to 2 where no feature is below 0, whatever its scale. It is a squared distance: of three images
    one may be more than the sum of the others.

    The network is any; published figures are those of networks trained on ImageNet, with weights of
    features that were fitted to judgements of people, and can't be compared with others.

    Source: Zhang, Isola, Efros, Shechtman & Wang 2018, "The unreasonable effectiveness of deep
    features as a perceptual metric", equation 1, all weights being 1.

    Args:
      first: Maps of some images, one array of shape [\*batch, height, width, feature] a layer.
      second: Maps of others, of the same shapes.

    Raises:
      ValueError: If there are no layers, shapes are wrong or don't fit each other, or a feature
        isn't finite.
    """
    first, second = _checked(first, "first"), _checked(second, "second")
    shapes = [[layer.shape for layer in maps] for maps in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"first and second must have the same shapes, got {shapes}")
    return sum(
        np.mean(np.sum(np.square(_directions(u) - _directions(v)), axis=-1), axis=(-2, -1))
        for u, v in zip(first, second, strict=True)
    )


def diversity(maps: Maps) -> float:
    """Computes the mean distance of two samples of one input, which tells how much samples differ.

    It is the mean over inputs of the mean of `perceptual_distance` over all pairs of different
    samples of an input: 0 where the samples of each are alike, however the inputs differ. That is
    twice the unbiased variance of the scaled vectors, by which it is computed, without the pairs.
    Hold it against that of real examples.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    section 5.2, where some of the pairs are drawn at random.

    Args:
      maps: Feature maps of translations, reconstructions or other samples, one array of shape
        [input, sample, height, width, feature] a layer.

    Raises:
      ValueError: If there are no layers, shapes are wrong or don't fit each other, an input has
        fewer than two samples, or a feature isn't finite.
    """
    maps = _checked(maps, "maps")
    batch = maps[0].shape[:-3]
    if len(batch) != 2 or batch[1] < 2:
        raise ValueError(
            "maps must have shapes [input, sample, height, width, feature] with 2 samples or more, "
            f"got {[layer.shape for layer in maps]}"
        )
    return float(np.mean([sum(map(_spread, layers)) for layers in zip(*maps, strict=True)]))


def _spread(samples: Float[np.ndarray, "sample height width feature"]) -> float:
    """The mean over pairs of samples of one layer's share of their distance."""
    vectors = _directions(samples)
    # Held against the first sample, those that are alike differ by exactly 0.
    return 2 * np.mean(np.sum(np.var(vectors - vectors[0], axis=0, ddof=1), axis=-1))


def _directions(layer: np.ndarray) -> Float[np.ndarray, "*batch height width feature"]:
    """Vectors of length 1, or of zeros."""
    largest = np.max(np.abs(layer), axis=-1, keepdims=True)
    # Of the largest entry 1, no square is too large for float64, and lengths are 1 or more.
    scaled = layer / np.where(largest > 0, largest, 1)
    return scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1)


def _checked(maps: Maps, name: str) -> list[np.ndarray]:
    if isinstance(maps, np.ndarray | Array):
        raise ValueError(f"{name} must be a sequence of layers, got one array of {maps.shape}")
    maps = [np.asarray(layer, np.float64) for layer in maps]
    shapes = [layer.shape for layer in maps]
    if not maps or any(layer.ndim < 3 or not layer.size for layer in maps):
        raise ValueError(
            f"{name} must have one layer or more, of shapes [*batch, height, width, feature], none "
            f"empty, got {shapes}"
        )
    if len({shape[:-3] for shape in shapes}) > 1:
        raise ValueError(f"{name} must have layers of the same images, got shapes {shapes}")
    if wrong := sum(int(np.sum(~np.isfinite(layer))) for layer in maps):
        raise ValueError(f"{name} must be finite, got {wrong} that aren't")
    return maps
