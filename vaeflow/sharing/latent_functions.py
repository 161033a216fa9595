"""What a latent-variable model is exported as."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from vaeflow.losses import evidence
from vaeflow.models import VAE, AutoEncoder, HierarchicalVAE
from vaeflow.sharing.flow_functions import KEYS, typed_keys
from vaeflow.sharing.functions import Argument, Function


def latent_functions(model: VAE | HierarchicalVAE | AutoEncoder) -> dict[str, Function]:
    """Lists the functions of a variational auto-encoder.

    ``encode(images, keys)`` gives the middle of the posterior, ``decode(latents)`` images,
    ``sample(keys, temperature)`` an image for each key, and ``elbo(images, keys)`` the bound on the
    log-likelihood in nats, from one sample of the latents. An auto-encoder has the first two alone.
    Where the model has classes, each takes `labels` as its last argument.

    Args:
      model: The model.

    Returns:
      The functions by name, for `save_exported`.
    """
    images = Argument(("b", *model.decoder.shape), jnp.uint8, "images, 0 to 255")
    latents = Argument(("b", model.latents), jnp.float32, "latents")
    temperature = Argument((), jnp.float32, "factor of the prior's deviations; 1 is the model's")

    def encode(variables, images: Array, keys: UInt32[Array, "batch 2"], *labels) -> Array:
        return model.apply(variables, images, typed_keys(keys), *labels, method="encode")

    def decode(variables, latents: Array, *labels) -> Array:
        return model.apply(variables, latents, *labels, method="decode")

    def sample(
        variables, keys: UInt32[Array, "batch 2"], temperature: Float[Array, ""], labels=None
    ) -> Array:
        def draw(key: Array, label: Array | None) -> Array:
            prior = model.apply(variables, label, temperature=temperature, method="prior")
            return prior.sample(seed=key)

        z = jax.vmap(draw)(typed_keys(keys), labels)
        return model.apply(variables, z, labels, method="decode")

    def elbo(variables, images: Array, keys: UInt32[Array, "batch 2"], labels=None) -> Array:
        batch = {"image": images, "label": labels}
        condition = None if labels is None else "label"
        found = evidence(model, variables, batch, typed_keys(keys), condition=condition)
        return found.log_weights()[0]

    observed, last = {"images": images, "keys": KEYS}, {}
    if getattr(model, "classes", None) is not None:
        last = {"labels": Argument(("b",), jnp.int32, f"labels, 0 to {model.classes - 1}")}
    functions = {
        "encode": Function(encode, observed | last, "the middle of the posterior of each image"),
        "decode": Function(decode, {"latents": latents} | last, images.meaning),
    }
    if isinstance(model, AutoEncoder):
        return functions
    bound = "lower bound on the log-likelihood of each image, nats"
    return {
        **functions,
        "sample": Function(
            sample, {"keys": KEYS, "temperature": temperature} | last, images.meaning
        ),
        "elbo": Function(elbo, observed | last, bound),
    }
