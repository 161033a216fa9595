"""Scores of generated images, from features or class probabilities of any network.

Fréchet and perceptual distances, inception scores, diversity, agreement, nearest neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Int, Num


def entropy_of(
    probabilities: Float[np.ndarray, "*batch category"],
) -> Float[np.ndarray, "*batch"]:
    """Computes -sum_k p_k log p_k in nats, exactly 0 for what is certain."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return 0.0 - np.sum(probabilities * logarithms, axis=-1)  # and never -0


def label_entropy(labels: Int[np.ndarray, " example"]) -> float:
    """Computes -sum_k p_k log p_k, p_k being the share of label k: how evenly classes occur.

    In nats: 0 where all labels are one, up to log K where each of K is as frequent. Of the most
    probable classes of a model's samples it tells how many of the classes they cover; hold it
    against that of the data's labels. Of few examples it is too low, by about
    (K - 1) / (2 examples).

    Args:
      labels: The label of each example, from 0 up, such as ``probabilities.argmax(-1)``.

    Raises:
      ValueError: If `labels` isn't a vector of integers from 0 up, with one at least.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            "labels must be integers from 0 up, [example], one or more, got "
            f"{labels.dtype} of shape {labels.shape}, the least {np.min(labels, initial=0)}"
        )
    counts = np.unique(labels, return_counts=True)[1]
    return float(entropy_of(counts / len(labels)))


def frechet_distance(
    first: Float[np.ndarray, "first feature"], second: Float[np.ndarray, "second feature"]
) -> float:
    r"""Computes the squared Fréchet distance between normals fitted to two sets of features.

    .. math:: d^2 = \|m_1 - m_2\|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

    for means m and covariances S, whose denominator is the number of rows less 1: the least
    E\ ``|x - y|^2`` of any coupling of the two normals. In squared units of the features. It is 0
    where means and covariances agree, whatever else differs.

    No matrix is squared and no root of one is taken, which would halve the digits: with
    :math:`S = R^T R` for the triangular factor R of the centred rows, the trace of the root is the
    sum of the singular values of :math:`R_1 R_2^T`. So covariances may be singular, with fewer rows
    than features too.

    The estimate is biased, upwards by about a multiple of 1 / rows that depends on the
    distributions: compare only distances between sets of the same numbers of rows.

    Source: Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter 2017, "GANs trained by a two
    time-scale update rule converge to a local Nash equilibrium", equation 6, who take features of
    the Inception network; Dowson & Landau 1982, "The Fréchet distance between multivariate normal
    distributions".

    Args:
      first: Features of some examples, such as samples.
      second: Features of others, such as data.

    Raises:
      ValueError: If the shapes are wrong or don't fit each other, a set has fewer than two rows, or
        a feature isn't finite.
    """
    first, second = _check_features(first, "first"), _check_features(second, "second")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            "first and second must have the same features, got shapes "
            f"{first.shape} and {second.shape}"
        )
    factors = [_factor(rows) for rows in (first, second)]
    between = np.sum(np.square(np.mean(first, axis=0) - np.mean(second, axis=0)))
    traces = sum(np.sum(np.square(factor)) for factor in factors)
    root = np.sum(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False))
    # Rounding may leave a zero below zero.
    return float(between + max(traces - 2 * root, 0.0))


def _factor(rows: np.ndarray) -> Float[np.ndarray, "rank feature"]:
    """R with R^T R = the covariance of the rows."""
    return np.linalg.qr(rows - np.mean(rows, axis=0), mode="r") / np.sqrt(len(rows) - 1)


def _check_features(rows: np.ndarray, name: str) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or len(rows) < 2 or not rows.shape[1]:
        raise ValueError(
            f"{name} must have shape [example, feature] with 2 examples or more, got {rows.shape}"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite, got {np.sum(~np.isfinite(rows))} that aren't")
    return rows


_TOLERANCE = 1e-3


def inception_score(probabilities: Float[np.ndarray, "sample class"]) -> float:
    """Computes exp(E_x KL(p(y|x) || p(y))), p(y) being the mean of p(y|x) over the samples.

    That is the exponential of the mutual information of samples and classes: high where the
    classifier is sure of each sample and all classes occur. From 1 to the number of classes. It
    doesn't depend on whether samples of a class differ, nor on whether they resemble the data.
    Compare it with that of as many real examples, as it is too low for few.

    The classifier here is any; published scores are those of the Inception network on ImageNet,
    over ten parts of 5,000 samples, and can't be compared with others.

    Source: Salimans, Goodfellow, Zaremba, Cheung, Radford & Chen 2016, "Improved techniques for
    training GANs", section 4.

    Args:
      probabilities: p(y|x) of each sample; zeros are allowed.

    Raises:
      ValueError: If the shape is wrong, or rows aren't probabilities that sum to 1 within 0.001.
    """
    return _score(_check_probabilities(probabilities, ("sample", "class")))


def conditional_inception_score(probabilities: Float[np.ndarray, "input sample class"]) -> float:
    """Computes exp(E_i E_x|i KL(p(y|x) || p(y|i))), p(y|i) being the mean over the samples of i.

    For models that make several samples of each input i, such as translations of an image: high
    where the classifier is sure of each sample and those of one input cover the classes. From 1,
    where the samples of an input have one class, to the number of classes or, if it is less,
    of samples of an input.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    section 5.2. The equation there has no exponential; their published program does.

    Args:
      probabilities: p(y|x) of each sample of each input; zeros are allowed.

    Raises:
      ValueError: As `inception_score`.
    """
    return _score(_check_probabilities(probabilities, ("input", "sample", "class")))


def _score(probabilities: Float[np.ndarray, "*input sample class"]) -> float:
    # The mean divergence is a difference of entropies, which zeros leave finite.
    marginal = entropy_of(np.mean(probabilities, axis=-2))
    divergence = np.mean(marginal) - np.mean(entropy_of(probabilities))
    return math.exp(max(float(divergence), 0.0))


def _check_probabilities(
    probabilities: np.ndarray, axes: tuple[str, ...]
) -> Float[np.ndarray, "*axes"]:
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != len(axes) or not probabilities.size:
        raise ValueError(
            f"probabilities must have shape [{', '.join(axes)}], none empty, got "
            f"{probabilities.shape}"
        )
    if not np.all(probabilities >= 0):  # nor NaN
        raise ValueError(
            f"probabilities must be at least 0, got {np.sum(~(probabilities >= 0))} that aren't"
        )
    sums = np.sum(probabilities, axis=-1)
    worst = sums.flat[np.argmax(np.abs(sums - 1))]
    if not abs(worst - 1) <= _TOLERANCE:
        raise ValueError(f"probabilities must sum to 1 over classes, got a sum of {worst:g}")
    return probabilities / sums[..., None]


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
    first, second = _check_maps(first, "first"), _check_maps(second, "second")
    shapes = [[layer.shape for layer in maps] for maps in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"first and second must have the same shapes, got {shapes}")
    return sum(
        np.mean(np.sum(np.square(_directions(u) - _directions(v)), axis=-1), axis=(-2, -1))
        for u, v in zip(first, second, strict=True)
    )


def diversity(maps: Maps) -> float:
    """Computes the diversity of samples: the mean distance of two samples of one input.

    It is the mean over inputs of the mean of `perceptual_distance` over all pairs of different
    samples of an input: 0 where the samples of each are equal, however the inputs differ. That is
    twice the unbiased variance of the scaled vectors, by which it is computed, without the pairs.
    Compare it with that of real examples.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    section 5.2, where some of the pairs are sampled.

    Args:
      maps: Feature maps of translations, reconstructions or other samples, one array of shape
        [input, sample, height, width, feature] a layer.

    Raises:
      ValueError: If there are no layers, shapes are wrong or don't fit each other, an input has
        fewer than two samples, or a feature isn't finite.
    """
    maps = _check_maps(maps, "maps")
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
    # Relative to the first sample, equal ones differ by exactly 0.
    return 2 * np.mean(np.sum(np.var(vectors - vectors[0], axis=0, ddof=1), axis=-1))


def _directions(layer: np.ndarray) -> Float[np.ndarray, "*batch height width feature"]:
    """Vectors of length 1, or of zeros."""
    largest = np.max(np.abs(layer), axis=-1, keepdims=True)
    # With a largest component of 1, no square overflows float64, and lengths are 1 or more.
    scaled = layer / np.where(largest > 0, largest, 1)
    return scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1)


def _check_maps(maps: Maps, name: str) -> list[np.ndarray]:
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


def agreement(before: Int[np.ndarray, " image"], after: Int[np.ndarray, " image"]) -> float:
    """Computes the share of images whose class after a change is that before it.

    With the classes that a classifier of each domain predicts, it measures whether translations
    preserve the content of images. It is 1 where all do; where classes after are independent of
    those before, it is the sum over classes of the product of their shares, 1 / K for K even ones.
    Compare it with the accuracies of the classifiers, which bound it in practice.

    Args:
      before: The class of each image.
      after: The class of the changed image.

    Raises:
      ValueError: If they aren't vectors of integers of one length above 0.
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.ndim != 1 or before.shape != after.shape or not len(before):
        raise ValueError(
            "before and after must be vectors of one length above 0, got shapes "
            f"{before.shape} and {after.shape}"
        )
    for name, values in (("before", before), ("after", after)):
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers, got {values.dtype}")
    return float(np.mean(before == after))


# Bounds the memory of the differences: 64 MiB of float64.
_BLOCK = 2**23


def nearest_neighbors(
    queries: Num[np.ndarray, "query *event"],
    references: Num[np.ndarray, "reference *event"],
    num_neighbors: int = 1,
) -> tuple[Int[np.ndarray, "query neighbor"], Float[np.ndarray, "query neighbor"]]:
    """Returns the references that are nearest to each query in Euclidean distance.

    Compared with samples they show whether a model has memorised its training images.

    Args:
      queries: Arrays to look up, shape ``[query, *event]``.
      references: Arrays to search, shape ``[reference, *event]``.
      num_neighbors: Number of neighbours of each query.

    Returns:
      Indices into `references` and distances, both of shape [query, neighbor], nearest first;
      equally near ones in the order of `references`.

    Raises:
      ValueError: If the shapes of the examples differ or there are fewer references than
        `num_neighbors`.
    """
    queries = np.asarray(queries)
    references = np.asarray(references)
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(
            "queries and references must hold examples of one shape, got"
            f" {queries.shape} and {references.shape}"
        )
    if not 1 <= num_neighbors <= len(references):
        raise ValueError(
            f"num_neighbors must be from 1 to {len(references)}, the number of references, got"
            f" {num_neighbors}"
        )
    indices = np.empty((len(queries), num_neighbors), dtype=np.int64)
    distances = np.empty((len(queries), num_neighbors))
    block = max(1, _BLOCK // max(1, math.prod(references.shape[1:])))
    for row, query in enumerate(queries):
        squares = np.concatenate(
            [
                # Differences, not products: close neighbours lose no digits.
                np.square(references[start : start + block] - query.astype(np.float64))
                .reshape(len(references[start : start + block]), -1)
                .sum(axis=1)
                for start in range(0, len(references), block)
            ]
        )
        nearest = np.argsort(squares, kind="stable")[:num_neighbors]
        indices[row] = nearest
        distances[row] = np.sqrt(squares[nearest])
    return indices, distances
