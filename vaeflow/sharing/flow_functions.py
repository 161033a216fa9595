"""What a flow model is exported as."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from vaeflow.models import FlowModel
from vaeflow.sharing.functions import Argument, Function

KEYS = Argument(("b", 2), jnp.uint32, "jax.random.key_data of a threefry2x32 key for each row")


def flow_functions(model: FlowModel) -> dict[str, Function]:
    """Lists the functions of a flow model without a context.

    ``log_prob(data, keys)`` gives nats of each example; without a dequantizer it takes no keys.
    ``sample(keys, temperature)`` gives an example for each key, from noise of that key alone.

    Args:
      model: The model; its images are uint8 if it has a dequantizer, its data float32 otherwise.

    Returns:
      The functions by name, for `save_exported`.
    """
    images = model.dequantizer is not None
    data = Argument(
        ("b", *model.flow.event_shape),
        jnp.uint8 if images else jnp.float32,
        "images, 0 to 255" if images else "data",
    )
    temperature = Argument((), jnp.float32, "factor of the noise's deviations; 1 is the density's")

    def log_prob(variables, data: Array, keys: UInt32[Array, "batch 2"] | None = None):
        rng = None if keys is None else typed_keys(keys)
        return model.apply(variables, data, rng, method="log_prob")

    def sample(variables, keys: UInt32[Array, "batch 2"], temperature: Float[Array, ""]):
        base = model.apply(variables, temperature=temperature, method="noise")
        noise = jax.vmap(lambda key: base.sample(seed=key))(typed_keys(keys))
        return model.apply(variables, noise, method="decode")

    return {
        "log_prob": Function(
            log_prob,
            {"images": data, "keys": KEYS} if images else {"data": data},
            "log-likelihood of each example, in nats"
            + (", at the dequantization noise of its key" if images else ""),
        ),
        "sample": Function(sample, {"keys": KEYS, "temperature": temperature}, data.meaning),
    }


def typed_keys(keys: UInt32[Array, "batch 2"]) -> Array:
    """Makes typed keys of their data."""
    return jax.random.wrap_key_data(keys, impl="threefry2x32")
