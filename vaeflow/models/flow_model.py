"""The density model of a flow, a base and, for images, a dequantizer.

`FlowModel` is the likelihood of data, which `vaeflow.losses.negative_log_likelihood` trains; of
vectors it is also a prior of a `vaeflow.models.VAE`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaeflow._util.arrays import row_keys
from vaeflow._util.checks import (
    as_array,
    bound,
    check_count,
    check_finite,
    check_keys,
    check_part,
    check_rows,
)
from vaeflow.distributions import Transformed, standard_normal
from vaeflow.models.preprocessing import FLOW_ATTRIBUTES
from vaeflow.typing import Flow, Preprocessor, Prior


class FlowModel(nn.Module):
    """A density model: noise of a base through a flow, and for images a dequantizer.

    Calling it returns the distribution of real-valued data. The methods are about the data
    themselves, which a dequantizer maps to reals and back: uint8 images in, nats of those images
    and uint8 samples out.

    Attributes:
      flow: A module of `vaeflow.flows`.
      dequantizer: `UniformDequantizer` or `VariationalDequantizer` for uint8 images; None for
        real-valued data.
      base: A module of `vaeflow.bases`, whose events have the shape of the flow's noise; None for
        a standard normal. Where the base needs labels and the flow has no classes, the context
        goes to the base alone.
    """

    flow: Flow
    dequantizer: Preprocessor | None = None
    base: Prior | None = None

    def __post_init__(self):
        check_part("flow", self.flow, "a flow", FLOW_ATTRIBUTES)
        shape = tuple(self.flow.event_shape)
        if self.dequantizer is not None:
            role = "a preprocessor (a base goes to `base`)"
            check_part("dequantizer", self.dequantizer, role, ("quantize", "bits"))
            noise = getattr(self.dequantizer, "flow", self.flow)
            if len(shape) != 3 or tuple(noise.event_shape) != shape:
                raise ValueError(
                    "flow must be one of the dequantizer's images, (height, width, channel), got "
                    f"flow.event_shape={shape} and a {type(self.dequantizer).__name__} of "
                    f"{tuple(noise.event_shape)}"
                )
        if self.base is not None:
            check_part("base", self.base, "a base", ("needs_labels",))
            noise = tuple(getattr(self.base, "event_shape", self.flow.noise_shape))
            if noise != tuple(self.flow.noise_shape):
                raise ValueError(
                    "base must have events of the shape of the flow's noise, "
                    f"{tuple(self.flow.noise_shape)}, got {noise}"
                )
        super().__post_init__()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of the data."""
        return tuple(self.flow.event_shape)

    @bound
    def __call__(
        self,
        data: Array | None = None,
        *,
        context: Array | None = None,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
        encoder: Callable[[Array], distrax.Distribution] | None = None,
    ) -> Transformed:
        """Builds the distribution of real-valued data: with keywords alone, as any `Prior`.

        Args:
          data: The first batch, in `init` alone: every data-dependent parameter is initialised from
            it, through the dequantizer. Ignored otherwise.
          context: Labels or other conditions with batch axes, passed to the flow, or None.
          batch_shape: Batch axes of the distribution where there is no context.
          temperature: Factor of the noise's deviations from its mean, or, in a mixture, from that
            of its component.
          encoder: Ignored.

        Returns:
          A distribution over ``[*event]`` with the batch axes of the context.

        Raises:
          ValueError: If the base's events don't have the shape of the flow's noise, or the data or
            the context doesn't fit.
        """
        del encoder
        if data is not None:
            data = as_array("data", data)
            if self.is_initializing():
                check_finite("data", data)
        if self.is_initializing() and data is not None and self.dequantizer is not None:
            data = self.dequantizer(data, row_keys(self.make_rng("params"), len(data))).values
        bijector = self._bijector(context, data)
        noise = self.noise(context=context, batch_shape=batch_shape, temperature=temperature)
        return Transformed(noise, bijector)

    @property
    def needs_labels(self) -> bool:
        """Whether the context must hold integer labels."""
        of_base = self.base is not None and self.base.needs_labels
        return of_base or self.flow.num_classes is not None

    def initialize(
        self, values: Array, latents: Float[Array, "batch latent"], *, context: Array | None
    ) -> None:
        """Starts the flow of a prior from latents; `init` of a `vaeflow.models.VAE` calls it."""
        del values
        self(latents, context=context)

    @bound
    def noise(
        self,
        *,
        context: Array | None = None,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
    ) -> distrax.Distribution:
        """Builds the distribution of the noise; arguments and errors as in a call."""
        batch = (
            batch_shape if context is None else _batch_of(self.flow, as_array("context", context))
        )
        temperature = self._as_wide_as_the_flow(temperature)
        if self.base is None:
            return standard_normal(self.flow.noise_shape, batch, temperature)
        noise = self.base(context=context, batch_shape=batch, temperature=temperature)
        if noise.event_shape != tuple(self.flow.noise_shape):
            raise ValueError(
                f"base must have events of the shape of the flow's noise, {self.flow.noise_shape}, "
                f"got {noise.event_shape}"
            )
        return noise

    def _as_wide_as_the_flow(self, temperature: Any) -> Any:
        """The temperature in the type of the flow's parameters, which the noise gets from it."""
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(self.flow.variables)]
        dtype = jnp.result_type(
            jnp.float32, *(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))
        )
        if dtype == jnp.float32:
            return temperature
        # By NumPy, so that a number stays known.
        traced = isinstance(temperature, jax.Array)
        return temperature.astype(dtype) if traced else np.asarray(temperature, dtype)

    def _bijector(self, context: Array | None, data: Array | None = None) -> distrax.Bijector:
        for_base = (
            self.base is not None and self.base.needs_labels and self.flow.num_classes is None
        )
        return self.flow(context=None if for_base else context, data=data)

    @bound
    def log_prob(
        self, data: Array, rng: Array | None = None, *, context: Array | None = None
    ) -> Float[Array, " batch"]:
        """Computes the log-likelihood of each example in nats.

        For images it is a lower bound, tight on average over the dequantization noise up to the
        dequantizer's gap. Where the flow has `num_probes` and `apply` is given an rng named
        "probe", it is an estimate, as unbiased as the bijector of the flow states.

        Args:
          data: uint8 images with a dequantizer, real-valued data without.
          rng: A typed key, or one for each row; needed with a dequantizer.
          context: One for each row, or None.

        Raises:
          ValueError: If there is a dequantizer but no key, integer data but no dequantizer, or a
            context that isn't one for each row.
        """
        values, log_det = self._values(data, rng)
        # A flow that estimates its log-determinants draws noise for each row of the data.
        bijector = self._bijector_of(values, context)
        density = Transformed(self.noise(context=context), bijector)
        return density.log_prob(values) + log_det

    @bound
    def sample(
        self,
        rng: Array,
        num_samples: int,
        *,
        context: Array | None = None,
        temperature: float = 1.0,
    ) -> Array:
        """Samples examples: uint8 images with a dequantizer, real-valued data without.

        Args:
          rng: A typed key.
          num_samples: Number of examples, for each context if there is one.
          context: Labels or other conditions with batch axes, or None.
          temperature: As in a call.

        Returns:
          Examples of shape ``[num_samples, *batch, *event]``.

        Raises:
          ValueError: If the key isn't typed, or there is no number of samples or not a context.
        """
        check_keys(rng)
        check_count("num_samples", num_samples, 0)
        distribution = self(context=context, temperature=temperature)
        return self._quantized(distribution.sample(seed=rng, sample_shape=num_samples))

    @bound
    def encode(
        self, data: Array, rng: Array | None = None, *, context: Array | None = None
    ) -> Float[Array, "batch *noise"]:
        """Maps examples to noise; arguments and errors as in `log_prob`."""
        values, _ = self._values(data, rng)
        return self._bijector_of(values, context).inverse(values)

    @bound
    def decode(self, noise: Float[Array, "batch *noise"], *, context: Array | None = None) -> Array:
        """Maps noise to examples: uint8 images with a dequantizer, real-valued data without."""
        return self._quantized(self._bijector(context).forward(as_array("noise", noise)))

    def _bijector_of(self, values: Array, context: Array | None) -> distrax.Bijector:
        """The bijector of rows of values, checked to have a context for each or one for all."""
        bijector = self._bijector(context, values)
        if context is not None:
            batch = values.shape[: values.ndim - len(self.flow.event_shape)]
            check_rows(_batch_of(self.flow, as_array("context", context)), batch, "data")
        return bijector

    def _values(self, data: Array, rng: Array | None) -> tuple[Array, Array]:
        data = as_array("data", data)
        if self.dequantizer is None:
            if not jnp.issubdtype(data.dtype, jnp.floating):
                raise ValueError(
                    f"data of dtype {data.dtype} need a model with a dequantizer, got None"
                )
            return data, jnp.zeros((), jnp.float32)
        if rng is None:
            raise ValueError("rng must be given where a dequantizer draws noise, got None")
        return self.dequantizer(data, row_keys(rng, data.shape[0]))

    def _quantized(self, values: Array) -> Array:
        return values if self.dequantizer is None else self.dequantizer.quantize(values)


def _batch_of(flow: Flow, context: Array) -> tuple[int, ...]:
    """Batch axes of a context."""
    if jnp.issubdtype(context.dtype, jnp.integer):
        return context.shape
    return context.shape[: max(context.ndim - flow.context_ndims, 0)]
