"""TFP on JAX, both ways: bijectors and distributions of `tensorflow_probability.substrates.jax`.

A bijector of TFP is a bijector here by `distrax.as_bijector`, and by `distrax.Block` where it acts
on single elements and is to be composed with maps of vectors:

::

    vf.bijectors.Chain([distrax.Block(distrax.as_bijector(tfb.Softplus()), 1), bijector])

For the three other ways distrax's wrappers don't do: those of distributions aren't pytrees whose
arrays may change, so that they compile again for each and can't leave a compiled function, and
those for TFP aren't instances of its classes, so that parts of TFP reject them.
"""

from __future__ import annotations

from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array
from tensorflow_probability.substrates import jax as tfp

from vaeflow.interop._facts import Bounds, is_reparameterized, support
from vaeflow.interop._one_pass import OnePass

__all__ = ["as_bijector", "as_distribution", "from_distribution"]

tfb, tfd = tfp.bijectors, tfp.distributions
_TensorShape = tfp.tf2jax.TensorShape


def as_bijector(bijector: distrax.Bijector) -> tfb.Bijector:
    """Wraps a bijector for TFP: for its distributions, `Chain` and `Invert`.

    The value and the log-determinant of an array are computed in one pass, in either direction. The
    result is a pytree, whose leaves are those of the bijector. Batch axes of its parameters, such
    as those of a context, aren't counted as TFP's batch shape: the base of a transformed
    distribution must have them.

    Args:
      bijector: A bijector of distrax or of this package.

    Raises:
      ValueError: If it isn't a bijector.
    """
    if not isinstance(bijector, distrax.Bijector):
        raise ValueError(
            f"bijector must be one of distrax or vaeflow, got a {type(bijector).__name__}"
        )
    leaves, structure = _leaves(bijector)
    return _Bijector(leaves, structure)


def as_distribution(distribution: distrax.Distribution) -> tfd.Distribution:
    """Wraps a distribution for TFP: for its joint distributions, mixtures and samplers.

    Batch and event shapes, log-densities in nats and samples are those of the distribution, and so
    are its mean, variance, mode and entropy where it has them. The bijector from the reals onto its
    support, by which TFP's samplers and surrogate posteriors work, is known where the support is
    an interval. The result is a pytree, whose leaves are those of the distribution.

    Args:
      distribution: A distribution of distrax or of this package.

    Raises:
      ValueError: If it isn't a distribution.
    """
    if not isinstance(distribution, distrax.Distribution):
        raise ValueError(
            f"distribution must be one of distrax or vaeflow, got a {type(distribution).__name__}"
        )
    leaves, structure = _leaves(distribution)
    return _Distribution(
        leaves,
        structure,
        dtype=jnp.dtype(distribution.dtype),
        batch=tuple(distribution.batch_shape),
        event=tuple(distribution.event_shape),
        reparameterized=is_reparameterized(distribution),
    )


def from_distribution(distribution: tfd.Distribution) -> distrax.Distribution:
    """Wraps a distribution of TFP, such as a base for a `vaeflow.distributions.Transformed`.

    The result is a pytree, whose leaves are those that TFP makes of the distribution.

    Args:
      distribution: A distribution of TFP on JAX, of one array.

    Raises:
      ValueError: If it isn't one, or its samples are several arrays.
    """
    if not isinstance(distribution, tfd.Distribution):
        raise ValueError(
            "distribution must be one of tensorflow_probability.substrates.jax, got a "
            f"{type(distribution).__name__}"
        )
    if isinstance(distribution.dtype, (dict, list, tuple)):
        raise ValueError(
            f"distribution must be of one array, got {distribution.name} of {distribution.dtype}"
        )
    return _FromTFP(distribution)


class _Bijector(tfb.AutoCompositeTensorBijector):
    """A bijector of distrax as one of TFP, parametrised by its leaves."""

    def __init__(self, leaves: list[Array], structure: Any, name: str = "vaeflow"):
        parameters = dict(locals())
        self._leaves = leaves
        self._structure = structure
        bijector = jax.tree.unflatten(structure, leaves)
        self._one_pass = OnePass(bijector)
        super().__init__(
            forward_min_event_ndims=bijector.event_ndims_in,
            inverse_min_event_ndims=bijector.event_ndims_out,
            # TFP then expects log-determinants without batch axes.
            is_constant_jacobian=False,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {}

    def _forward(self, x: Array) -> Array:
        return self._one_pass.forward(x)

    def _inverse(self, y: Array) -> Array:
        return self._one_pass.inverse(y)

    def _forward_log_det_jacobian(self, x: Array) -> Array:
        return self._one_pass.log_det(x, None)

    def _inverse_log_det_jacobian(self, y: Array) -> Array:
        return -self._one_pass.log_det(None, y)

    def _forward_event_shape(self, shape: Any) -> Any:
        return _TensorShape(_shape(self._one_pass.bijector.forward, shape))

    def _inverse_event_shape(self, shape: Any) -> Any:
        return _TensorShape(_shape(self._one_pass.bijector.inverse, shape))

    def _forward_event_shape_tensor(self, shape: Any) -> Array:
        return jnp.asarray(_shape(self._one_pass.bijector.forward, shape), jnp.int32)

    def _inverse_event_shape_tensor(self, shape: Any) -> Array:
        return jnp.asarray(_shape(self._one_pass.bijector.inverse, shape), jnp.int32)


class _Distribution(tfd.AutoCompositeTensorDistribution):
    """A distribution of distrax as one of TFP, parametrised by its leaves."""

    def __init__(
        self,
        leaves: list[Array],
        structure: Any,
        dtype: Any,
        batch: tuple[int, ...],
        event: tuple[int, ...],
        reparameterized: bool,
        name: str = "vaeflow",
    ):
        parameters = dict(locals())
        self._leaves = leaves
        self._structure = structure
        self._batch = batch
        self._event = event
        self._reparameterized = reparameterized
        how = tfd.FULLY_REPARAMETERIZED if reparameterized else tfd.NOT_REPARAMETERIZED
        super().__init__(
            dtype=dtype,
            reparameterization_type=how,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: int | None = None) -> dict[str, Any]:
        return {}

    @property
    def _distribution(self) -> distrax.Distribution:
        return jax.tree.unflatten(self._structure, self._leaves)

    def _batch_shape(self) -> Any:
        return _TensorShape(self._batch)

    def _event_shape(self) -> Any:
        return _TensorShape(self._event)

    def _batch_shape_tensor(self, **parameters: Any) -> Array:
        return jnp.asarray(self._batch, jnp.int32)

    def _event_shape_tensor(self) -> Array:
        return jnp.asarray(self._event, jnp.int32)

    def _sample_n(self, n: int, seed: Array | None = None) -> Array:
        return self._distribution.sample(seed=seed, sample_shape=(int(n),))

    def _sample_and_log_prob(self, sample_shape: Any, seed: Array) -> tuple[Array, Array]:
        shape = tuple(int(size) for size in sample_shape)
        return self._distribution.sample_and_log_prob(seed=seed, sample_shape=shape)

    def _log_prob(self, value: Array) -> Array:
        return self._distribution.log_prob(value)

    def _mean(self) -> Array:
        return self._distribution.mean()

    def _variance(self) -> Array:
        return self._distribution.variance()

    def _mode(self) -> Array:
        return self._distribution.mode()

    def _entropy(self) -> Array:
        return self._distribution.entropy()

    def _default_event_space_bijector(self) -> tfb.Bijector | None:
        bounds = support(self._distribution)
        return None if bounds is None else _onto(bounds)


def _leaves(tree: Any) -> tuple[list[Array], Any]:
    leaves, structure = jax.tree.flatten(tree)
    # TFP takes arrays of NumPy for constants.
    return [jnp.asarray(leaf) for leaf in leaves], structure


def _onto(bounds: Bounds) -> tfb.Bijector:
    """The bijector from the reals onto an interval."""
    lower, upper = bounds
    if lower is None and upper is None:
        return tfb.Identity()
    if upper is None:
        return tfb.Chain([tfb.Shift(lower), tfb.Softplus()])
    if lower is None:
        return tfb.Chain([tfb.Shift(upper), tfb.Scale(-1.0), tfb.Softplus()])
    return tfb.Sigmoid(lower, upper)


def _shape(method: Any, shape: Any) -> tuple[int, ...]:
    known = tuple(int(size) for size in shape)
    return jax.eval_shape(method, jax.ShapeDtypeStruct(known, jnp.float32)).shape


class _FromTFP(distrax.Distribution):
    """A distribution of TFP as one of distrax; a pytree with TFP's own leaves."""

    def __init__(self, distribution: tfd.Distribution):
        super().__init__()
        self._tfp = distribution

    @property
    def name(self) -> str:
        """TFP's name of the distribution."""
        return self._tfp.name

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._tfp.event_shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of distributions."""
        return tuple(self._tfp.batch_shape)

    @property
    def dtype(self):
        """Type of the samples."""
        return jnp.dtype(self._tfp.dtype)

    def log_prob(self, value: Array) -> Array:
        """Computes the log-density in nats."""
        return self._tfp.log_prob(value)

    def _sample_n(self, key: Array, n: int) -> Array:
        return self._tfp.sample(n, seed=key)

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        return self._tfp.experimental_sample_and_log_prob(n, seed=key)

    def mean(self) -> Array:
        """The mean, where TFP has one."""
        return self._tfp.mean()

    def variance(self) -> Array:
        """The variance, where TFP has one."""
        return self._tfp.variance()

    def stddev(self) -> Array:
        """The standard deviation, where TFP has one."""
        return self._tfp.stddev()

    def mode(self) -> Array:
        """The mode, where TFP has one."""
        return self._tfp.mode()

    def median(self) -> Array:
        """The median, where TFP has quantiles."""
        return self._tfp.quantile(0.5)

    def entropy(self) -> Array:
        """The entropy in nats, where TFP has one."""
        return self._tfp.entropy()

    def log_cdf(self, value: Array) -> Array:
        """Computes the logarithm of the distribution function, where TFP has one."""
        return self._tfp.log_cdf(value)
