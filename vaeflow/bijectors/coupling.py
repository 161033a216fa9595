"""Coupling layers: half of the event transforms the other half."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp
from jaxtyping import Array

from vaeflow.bijectors.base import Bijector, sum_event
from vaeflow.bijectors.transformers import bounded_log_scale
from vaeflow.typing import Transformer

Network = Callable[[Array], Array]


class Coupling(Protocol):
    """What every coupling has.

    Attributes:
      name: Its name, for messages.
      conditioner: Network that reads the first channels.
      split: Number of channels that the conditioner reads.
    """

    name: str
    conditioner: Network
    split: int


class AffineCoupling(Bijector):
    """Shifts and scales the last channels given the first.

    With x = [a, b] split along the last axis, y = [a, (b + t) exp(s)], where t and the raw log
    scale come from ``conditioner(a)`` and s = log_scale(raw).
    log|det dy/dx| = sum of s. Both directions cost one pass of the conditioner.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, 2 (channel - split)]``, shifts first.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", section 3.2;
    shifting before scaling, as Kingma & Dhariwal 2018 do.
    """

    static_fields = ("split", "log_scale")

    def __init__(
        self,
        conditioner: Network,
        split: int,
        event_ndims: int = 1,
        log_scale: Callable[[Array], Array] = bounded_log_scale,
    ):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it a map without condition.
          event_ndims: Number of trailing axes that make an event.
          log_scale: Static function from the network's raw output to the logarithm of the factor.
        """
        super().__init__(event_ndims_in=event_ndims)
        self.conditioner = conditioner
        self.split = split
        self.log_scale = log_scale

    def _shift_and_log_scale(self, condition: Array, transformed: Array) -> tuple[Array, Array]:
        parameters = conditioned(self, condition, transformed, 2)
        shift, raw = jnp.split(parameters, 2, axis=-1)
        return shift, self.log_scale(raw)

    def _forward(self, x):
        condition, transformed = split_channels(self, x)
        shift, log_scale = self._shift_and_log_scale(condition, transformed)
        y = jnp.concatenate([condition, (transformed + shift) * jnp.exp(log_scale)], axis=-1)
        return y, sum_event(log_scale, self.event_ndims_in)

    def _inverse(self, y):
        condition, transformed = split_channels(self, y)
        shift, log_scale = self._shift_and_log_scale(condition, transformed)
        x = jnp.concatenate([condition, transformed * jnp.exp(-log_scale) - shift], axis=-1)
        return x, -sum_event(log_scale, self.event_ndims_in)


class AdditiveCoupling(Bijector):
    """Shifts the last channels given the first.

    With x = [a, b] split along the last axis, y = [a, b + conditioner(a)]; the log-determinant is
    zero. Both directions cost one pass of the conditioner.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, channel - split]``.

    Source: Dinh, Krueger & Bengio 2014, "NICE: Non-linear independent components estimation",
    section 3.2.
    """

    static_fields = ("split",)

    def __init__(self, conditioner: Network, split: int, event_ndims: int = 1):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it a map without condition.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(event_ndims_in=event_ndims, is_constant_log_det=True)
        self.conditioner = conditioner
        self.split = split

    def _shifted(self, x: Array, sign: int) -> tuple[Array, Array]:
        condition, transformed = split_channels(self, x)
        shift = conditioned(self, condition, transformed, 1)
        y = jnp.concatenate([condition, transformed + sign * shift], axis=-1)
        return y, jnp.zeros(x.shape[: x.ndim - self.event_ndims_in], jnp.float32)

    def _forward(self, x):
        return self._shifted(x, 1)

    def _inverse(self, y):
        return self._shifted(y, -1)


def split_channels(coupling: Coupling, x: Array) -> tuple[Array, Array]:
    """Splits x along the last axis into what a coupling reads and what it transforms.

    Raises:
      ValueError: If `split` leaves nothing to transform.
    """
    if not 0 <= coupling.split < x.shape[-1]:
        raise ValueError(
            f"{coupling.name}: split must be between 0 and the number of channels - 1, "
            f"got {coupling.split} for an array of shape {x.shape}"
        )
    return x[..., : coupling.split], x[..., coupling.split :]


def conditioned(coupling: Coupling, condition: Array, transformed: Array, groups: int) -> Array:
    """Calls a coupling's conditioner for `groups` parameters of each transformed channel.

    Raises:
      ValueError: If it returns an array of another shape.
    """
    expected = (*transformed.shape[:-1], groups * transformed.shape[-1])
    parameters = coupling.conditioner(condition)
    if parameters.shape != expected:
        raise ValueError(
            f"{coupling.name}: the conditioner must return an array of shape {expected}, "
            f"got {parameters.shape}"
        )
    # The network may compute in bfloat16; what it parametrises may not.
    return parameters.astype(jnp.promote_types(transformed.dtype, jnp.float32))


class TransformedCoupling(Bijector):
    """Maps each of the last channels by a member of a family, given the first channels.

    With x = [a, b] split along the last axis, y = [a, f(b)], where f is the elementwise bijector
    that `transformer` makes of ``conditioner(a)``. log|det dy/dx| is that of f. Both directions
    cost one pass of the conditioner and that direction of f.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, (channel - split) parameters]``: for
    each channel in turn its parameters.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", section 2.1.
    """

    static_fields = ("split", "transformer")

    def __init__(
        self, conditioner: Network, split: int, transformer: Transformer, event_ndims: int = 1
    ):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it a map without condition.
          transformer: The family, such as `SplineTransformer`.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(event_ndims_in=event_ndims)
        self.conditioner = conditioner
        self.split = split
        self.transformer = transformer

    def _transformed(self, x, inverse):
        condition, transformed = split_channels(self, x)
        groups = self.transformer.num_parameters
        raw = conditioned(self, condition, transformed, groups)
        bijector = self.transformer(raw.reshape((*transformed.shape, groups)), self.event_ndims_in)
        apply = bijector.inverse_and_log_det if inverse else bijector.forward_and_log_det
        transformed, log_det = apply(transformed)
        condition = condition.astype(transformed.dtype)
        return jnp.concatenate([condition, transformed], axis=-1), log_det

    def _forward(self, x):
        return self._transformed(x, inverse=False)

    def _inverse(self, y):
        return self._transformed(y, inverse=True)
