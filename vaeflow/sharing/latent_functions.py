"""What a latent-variable model is exported as."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from vaeflow.losses import evidence
from vaeflow.models import VAE, AutoEncoder
from vaeflow.sharing.flow_functions import KEYS, typed_keys
from vaeflow.sharing.functions import Argument, Function


def latent_functions(model: VAE | AutoEncoder) -> dict[str, Function]:
    """Lists the functions of a variational auto-encoder without classes.

    ``encode(images, keys)`` gives the middle of the posterior, ``decode(latents)`` images,
    ``sample(keys, temperature)`` an image for each key, and ``elbo(images, keys)`` the bound on the
    log-likelihood in nats, from one sample of the latents. An auto-encoder has the first two alone.

    Args:
      model: The model.

    Returns:
      The functions by name, for `save_exported`.
    """
    images = Argument(("b", *model.decoder.shape), jnp.uint8, "images, 0 to 255")
    latents = Argument(("b", model.latents), jnp.float32, "latents")
    temperature = Argument((), jnp.float32, "factor of the prior's deviations; 1 is the model's")

    def encode(variables, images: Array, keys: UInt32[Array, "batch 2"]) -> Array:
        return model.apply(variables, images, typed_keys(keys), method="encode")

    def decode(variables, latents: Array) -> Array:
        return model.apply(variables, latents, method="decode")

    def sample(variables, keys: UInt32[Array, "batch 2"], temperature: Float[Array, ""]) -> Array:
        prior = model.apply(variables, temperature=temperature, method="prior")
        z = jax.vmap(lambda key: prior.sample(seed=key))(typed_keys(keys))
        return model.apply(variables, z, method="decode")

    def elbo(variables, images: Array, keys: UInt32[Array, "batch 2"]) -> Array:
        found = evidence(model, variables, {"image": images}, typed_keys(keys))
        return found.log_weights()[0]

    observed = {"images": images, "keys": KEYS}
    both = {
        "encode": Function(encode, observed, "the middle of the posterior of each image"),
        "decode": Function(decode, {"latents": latents}, images.meaning),
    }
    if isinstance(model, AutoEncoder):
        return both
    return {
        **both,
        "sample": Function(sample, {"keys": KEYS, "temperature": temperature}, images.meaning),
        "elbo": Function(elbo, observed, "lower bound on the log-likelihood of each image, nats"),
    }
