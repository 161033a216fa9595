"""Rotations and reflections of vectors."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vaeflow.bijectors.amortised import prepare_vectors
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.orthogonal import householder_product


class Householder(Bijector):
    """Multiplies vectors by an orthogonal matrix: y = Q x, with log|det dy/dx| = 0.

    Q is the product of the Householder reflections along the rows of `reflections`, those shorter
    than 1e-6 left out. As many reflections as entries make every orthogonal matrix whose
    determinant has that sign. Both directions cost the same.

    Shapes: events are ``[dimension]``; `reflections` is ``[*parameters, reflection, dimension]``,
    whose batch axes broadcast against those of the input.

    Source: Tomczak & Welling 2016, "Improving variational auto-encoders using Householder flow".
    """

    def __init__(self, reflections: Float[Array, "*parameters reflection dimension"]):
        """Builds the map.

        Args:
          reflections: Normals of the planes of reflection, of any length.

        Raises:
          ValueError: If `reflections` has fewer than two axes, or there are none.
        """
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self.reflections = jnp.asarray(reflections)
        if self.reflections.ndim < 2 or 0 in self.reflections.shape:
            raise ValueError(
                "reflections must have shape [*batch, reflection, dimension] without zeros, got "
                f"{self.reflections.shape}"
            )

    def _turned(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        batch, dimension = self.reflections.shape[:-2], self.reflections.shape[-1]
        x = prepare_vectors(self.name, x, dimension, batch)
        matrix = householder_product(self.reflections)
        matrix = matrix.mT if inverse else matrix
        y = jnp.matmul(matrix, x[..., None], precision=lax.Precision.HIGHEST)[..., 0]
        return y, jnp.zeros(x.shape[:-1], x.dtype)

    def _forward(self, x):
        return self._turned(x, inverse=False)

    def _inverse(self, y):
        return self._turned(y, inverse=True)
