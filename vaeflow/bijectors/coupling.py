"""Coupling layers: the first channels of an event parametrise an elementwise map of the others.

With x = [a, b] split along the last axis, y = [a, f(b; theta(a))]. The Jacobian is triangular and
log|det dy/dx| that of f; both directions cost one pass of the conditioner theta.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from vaeflow._util.shapes import sum_event
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.transformers import bounded_log_scale
from vaeflow.typing import Transformer

Network = Callable[[Array], Array]


class _Coupling(Bijector):
    """Splits the channels, calls the conditioner, and leaves the elementwise map to subclasses."""

    static_fields = ("split",)

    def __init__(
        self,
        conditioner: Network,
        split: int,
        event_ndims: int,
        *,
        is_constant_log_det: bool = False,
    ):
        super().__init__(event_ndims_in=event_ndims, is_constant_log_det=is_constant_log_det)
        self.conditioner = conditioner
        self.split = split

    @property
    @abc.abstractmethod
    def _num_parameters(self) -> int:
        """Number of parameters of each transformed channel."""

    @abc.abstractmethod
    def _transform(self, parameters: Array, b: Array, inverse: bool) -> tuple[Array, Array]:
        """Computes f(b; parameters), or its inverse, with its log-determinant."""

    def _couple(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        if not 0 <= self.split < x.shape[-1]:
            raise ValueError(
                f"{self.name}: split must be between 0 and the number of channels - 1, "
                f"got {self.split} for an array of shape {x.shape}"
            )
        a, b = x[..., : self.split], x[..., self.split :]
        b, log_det = self._transform(self._parameters(a, b), b, inverse)
        return jnp.concatenate([a.astype(b.dtype), b], axis=-1), log_det

    def _parameters(self, a: Array, b: Array) -> Array:
        expected = (*b.shape[:-1], self._num_parameters * b.shape[-1])
        parameters = self.conditioner(a)
        if parameters.shape != expected:
            raise ValueError(
                f"{self.name}: the conditioner must return an array of shape {expected}, "
                f"got {parameters.shape}"
            )
        # The network may compute in bfloat16, the map itself may not.
        return parameters.astype(jnp.promote_types(b.dtype, jnp.float32))

    def _forward(self, x):
        return self._couple(x, inverse=False)

    def _inverse(self, y):
        return self._couple(y, inverse=True)


class AffineCoupling(_Coupling):
    """Affine coupling: shifts and scales the last channels given the first.

    With x = [a, b] split along the last axis, y = [a, (b + t) exp(s)], where t and the raw log
    scale come from ``conditioner(a)`` and s = log_scale(raw).
    log|det dy/dx| = sum of s. Both directions cost one pass of the conditioner.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, 2 (channel - split)]``, shifts first.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP", section 3.2;
    shifting before scaling, as Kingma & Dhariwal 2018 do.
    """

    static_fields = ("split", "log_scale")
    _num_parameters = 2

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
          split: Number of channels that the conditioner reads; 0 makes it unconditional.
          event_ndims: Number of trailing axes that make an event.
          log_scale: Static function from the network's raw output to the logarithm of the factor.
        """
        super().__init__(conditioner, split, event_ndims)
        self.log_scale = log_scale

    def _transform(self, parameters, b, inverse):
        shift, raw = jnp.split(parameters, 2, axis=-1)
        log_scale = self.log_scale(raw)
        log_det = sum_event(log_scale, self.event_ndims_in)
        if inverse:
            return b * jnp.exp(-log_scale) - shift, -log_det
        return (b + shift) * jnp.exp(log_scale), log_det


class AdditiveCoupling(_Coupling):
    """Additive coupling: shifts the last channels given the first.

    With x = [a, b] split along the last axis, y = [a, b + conditioner(a)]; the log-determinant is
    zero. Both directions cost one pass of the conditioner.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, channel - split]``.

    Source: Dinh, Krueger & Bengio 2014, "NICE: Non-linear independent components estimation",
    section 3.2.
    """

    _num_parameters = 1

    def __init__(self, conditioner: Network, split: int, event_ndims: int = 1):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it unconditional.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(conditioner, split, event_ndims, is_constant_log_det=True)

    def _transform(self, parameters, b, inverse):
        log_det = jnp.zeros(b.shape[: b.ndim - self.event_ndims_in], jnp.float32)
        return (b - parameters if inverse else b + parameters), log_det


class TransformedCoupling(_Coupling):
    """Coupling by a family of elementwise maps, chosen given the first channels.

    With x = [a, b] split along the last axis, y = [a, f(b)], where f is the elementwise bijector
    that `transformer` builds from ``conditioner(a)``. log|det dy/dx| is that of f. Both directions
    cost one pass of the conditioner and that direction of f.

    Shapes: x is ``[*batch, *positions, channel]``; the conditioner maps
    ``[*batch, *positions, split]`` to ``[*batch, *positions, (channel - split) parameters]``, the
    parameters of one channel next to each other. (`AffineCoupling` has all shifts first, and shifts
    before it scales, so it isn't this class with an `AffineTransformer`.)

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows", section 2.1.
    """

    static_fields = ("split", "transformer")

    def __init__(
        self, conditioner: Network, split: int, transformer: Transformer, event_ndims: int = 1
    ):
        """Builds the coupling.

        Args:
          conditioner: A `Conditioner`, or another pytree that can be called.
          split: Number of channels that the conditioner reads; 0 makes it unconditional.
          transformer: The family, such as `SplineTransformer`.
          event_ndims: Number of trailing axes that make an event.
        """
        super().__init__(conditioner, split, event_ndims)
        self.transformer = transformer

    @property
    def _num_parameters(self) -> int:
        return self.transformer.num_parameters

    def _transform(self, parameters, b, inverse):
        raw = parameters.reshape((*b.shape, self._num_parameters))
        bijector = self.transformer(raw, self.event_ndims_in)
        return bijector.inverse_and_log_det(b) if inverse else bijector.forward_and_log_det(b)
