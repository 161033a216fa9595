"""Networks that depend on time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class TimeDependentMLP(nn.Module):
    """A multilayer perceptron whose layers are gated and shifted by time, zero at first.

    Each layer computes (W x + b) * sigmoid(G u + g) + H u, with u the time, followed by the entries
    of the context where there is one. With tanh between the layers the result is a smooth and
    bounded function of x, so that dx/dt = network(x, t) has a solution for all times.

    It multiplies in full precision: solvers take rounding for error.

    Source: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud 2019, "FFJORD: Free-form continuous
    dynamics for scalable reversible generative models", and their published code.

    Attributes:
      entries: Number of entries of a vector, of inputs and of outputs.
      hidden: Sizes of the hidden layers.
      activation: Nonlinearity after each hidden layer; smooth, as solvers want it.
    """

    entries: int
    hidden: Sequence[int] = (64, 64)
    activation: Callable[[Array], Array] = jnp.tanh

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch entry"],
        time: Float[Array, " batch"],
        context: Float[Array, "batch feature"] | None = None,
    ) -> Float[Array, "batch entry"]:
        """Maps ``[batch, entries]`` at times ``[batch]`` to ``[batch, entries]``."""
        given = time[:, None].astype(x.dtype)
        if context is not None:
            given = jnp.concatenate([given, context.astype(x.dtype)], axis=-1)
        for number, size in enumerate((*self.hidden, self.entries)):
            last = number == len(self.hidden)
            init = nn.initializers.zeros if last else nn.initializers.lecun_normal()

            def dense(name, bias=True, init=init, size=size, number=number):
                return nn.Dense(
                    size,
                    use_bias=bias,
                    kernel_init=init,
                    precision=lax.Precision.HIGHEST,
                    name=f"{name}_{number}",
                )

            x = dense("layer")(x) * jax.nn.sigmoid(dense("gate")(given))
            x = x + dense("shift", bias=False)(given)
            x = x if last else self.activation(x)
        return x
