"""A normal base of which a network turns draws down."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float

from vaeflow.bijectors import Conditioner
from vaeflow.distributions import Resampled
from vaeflow.nn import MLP


class ResampledBase(nn.Module):
    """A standard normal whose draws are accepted with a learned probability: modes, holes, rings.

    A flow can't tear its base apart; this one may have gaps. The share that is accepted, which the
    density needs, is the average over 2^`log_points` fixed points of low discrepancy, so that the
    density is a function of the parameters alone. At first every other draw is accepted, whatever
    it is, and the base is a standard normal. Meant for few entries: the points thin out in many.

    Source: Bauer & Mnih 2019, "Resampled priors for variational autoencoders"; as a base, Stimper,
    Schoelkopf & Hernandez-Lobato 2022, "Resampling base distributions of normalizing flows".

    Attributes:
      event_shape: Shape of a sample: (dimension,).
      hidden: Sizes of the hidden layers of the network.
      truncation: Number T of draws of which the last is taken in any case.
      log_points: Binary logarithm of the number of points.
    """

    event_shape: tuple[int]
    hidden: Sequence[int] = (64, 64)
    truncation: int = 100
    log_points: int = 12

    needs_labels = False

    @nn.compact
    def __call__(
        self,
        context: Array | None = None,
        *,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> Resampled:
        """Builds the distribution; the context is ignored.

        Args:
          context: Anything.
          batch_shape: Batch axes of the distribution.
          temperature: Factor of the samples.

        Raises:
          ValueError: If events aren't vectors.
        """
        del context
        if len(self.event_shape) != 1:
            raise ValueError(f"event_shape must be (dimension,), got {self.event_shape}")
        (dimension,) = self.event_shape
        network = MLP(1, self.hidden, nn.silu, parent=None)
        points = jnp.asarray(normal_points(dimension, self.log_points))
        if self.is_initializing():
            parameters = self.param("network", lambda key: network.init(key, points)["params"])
        else:
            parameters = self.get_variable("params", "network")
        acceptance = Conditioner(network, {"params": parameters})
        share = jnp.mean(nn.sigmoid(acceptance(points)))
        return Resampled(acceptance, share, dimension, self.truncation, batch_shape, temperature)


def normal_points(dimension: int, log_count: int) -> Float[np.ndarray, "point dimension"]:
    """Spreads 2^log_count points as a standard normal does, more evenly than chance.

    Source: Sobol' 1967, scrambled as by Owen 1995, in scipy.
    """
    uniform = scipy.stats.qmc.Sobol(dimension, seed=0).random_base2(log_count)
    return scipy.stats.norm.ppf(uniform).astype(np.float32)
