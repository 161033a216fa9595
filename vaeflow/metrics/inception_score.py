"""Scores of samples by the probabilities that a classifier gives their classes."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from vaeflow.metrics.entropy import entropy_of

_TOLERANCE = 1e-3


def inception_score(probabilities: Float[np.ndarray, "sample class"]) -> float:
    """Computes exp(E_x KL(p(y|x) || p(y))), p(y) being the mean of p(y|x) over the samples.

    That is the exponential of the information that a sample has about its class: high where the
    classifier is sure of each sample and all classes occur. From 1 to the number of classes. It
    doesn't see whether samples of a class differ, nor whether they are like the data: hold it
    against that of as many real examples, for it is too low of few.

    The classifier here is any; published scores are those of the Inception network on ImageNet,
    over ten parts of 5,000 samples, and can't be compared with others.

    Source: Salimans, Goodfellow, Zaremba, Cheung, Radford & Chen 2016, "Improved techniques for
    training GANs", section 4.

    Args:
      probabilities: p(y|x) of each sample; zeros are allowed.

    Raises:
      ValueError: If the shape is wrong, or rows aren't probabilities that sum to 1 within 0.001.
    """
    return _score(_checked(probabilities, ("sample", "class")))


def conditional_inception_score(probabilities: Float[np.ndarray, "input sample class"]) -> float:
    """Computes exp(E_i E_x|i KL(p(y|x) || p(y|i))), p(y|i) being the mean over the samples of i.

    For models that make several samples of each input i, such as translations of an image: high
    where the classifier is sure of each sample and those of one input cover the classes. From 1,
    where the samples of an input are alike in class, to the number of classes or, if it is less,
    of samples of an input.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    section 5.2. The equation there has no exponential; their published program does.

    Args:
      probabilities: p(y|x) of each sample of each input; zeros are allowed.

    Raises:
      ValueError: As `inception_score`.
    """
    return _score(_checked(probabilities, ("input", "sample", "class")))


def _score(probabilities: Float[np.ndarray, "*input sample class"]) -> float:
    # The mean divergence is a difference of entropies, which zeros leave finite.
    marginal = entropy_of(np.mean(probabilities, axis=-2))
    divergence = np.mean(marginal) - np.mean(entropy_of(probabilities))
    return math.exp(max(float(divergence), 0.0))


def _checked(probabilities: np.ndarray, axes: tuple[str, ...]) -> Float[np.ndarray, "*axes"]:
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
