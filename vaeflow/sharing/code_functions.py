"""What an auto-encoder with codes and its priors are exported as."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from vaeflow.losses import code_bound
from vaeflow.models import CodeModel, submodel
from vaeflow.sharing.flow_functions import KEYS, typed_keys
from vaeflow.sharing.functions import Argument, Function


def code_functions(model: CodeModel, names: tuple[str, ...]) -> dict[str, Function]:
    """Lists the functions of a model with codes.

    ``encode_NAME(images, keys)`` gives the map of codes of each level, ``decode(NAME, ...)`` images
    of the maps of all levels, ``sample(keys, temperature)`` an image for each key, and
    ``bound(images, keys)`` the bound on the log-likelihood in nats. Where the priors take labels,
    so do the last two, as their last argument.

    Args:
      model: The auto-encoder and its priors.
      names: Names of the levels, from the top; each becomes part of that of a function.

    Returns:
      The functions by name, for `save_exported`.
    """
    coder = model.auto_encoder
    images = Argument(("b", *coder.decoder.shape), jnp.uint8, "images, 0 to 255")
    maps = {
        name: Argument(
            ("b", *prior.network.shape), jnp.int32, f"codes, 0 to {prior.network.codes - 1}"
        )
        for name, prior in zip(names, model.priors, strict=True)
    }
    temperature = Argument((), jnp.float32, "what logits of codes are divided by; 1 is the model's")

    def encode(level: int):
        def call(variables, images: Array, keys: UInt32[Array, "batch 2"]) -> Array:
            own = submodel(model, variables, "auto_encoder")[1]
            return coder.apply(own, images, typed_keys(keys), method="encode")[level]

        return call

    def decode(variables, *codes: Array) -> Array:
        return coder.apply(submodel(model, variables, "auto_encoder")[1], codes, method="decode")

    def sample(
        variables, keys: UInt32[Array, "batch 2"], temperature: Float[Array, ""], labels=None
    ) -> Array:
        def draw(key: Array, label: Array | None) -> Array:
            one = None if label is None else label[None]
            drawn = model.apply(
                variables, key, 1, one, temperature=temperature, method="sample_codes"
            )
            return jax.tree.map(lambda codes: codes[0], drawn)

        return decode(variables, *jax.vmap(draw)(typed_keys(keys), labels))

    def bound(variables, images: Array, keys: UInt32[Array, "batch 2"], labels=None) -> Array:
        batch = {"image": images, "label": labels}
        return code_bound(model, variables, batch, typed_keys(keys)).total()

    last = {}
    if model.classes is not None:
        last = {"labels": Argument(("b",), jnp.int32, f"labels, 0 to {model.classes - 1}")}
    observed = {"images": images, "keys": KEYS}
    return {
        **{
            f"encode_{name}": Function(encode(level), observed, argument.meaning)
            for level, (name, argument) in enumerate(maps.items())
        },
        "decode": Function(decode, maps, images.meaning),
        "sample": Function(
            sample, {"keys": KEYS, "temperature": temperature} | last, images.meaning
        ),
        "bound": Function(
            bound, observed | last, "lower bound on the log-likelihood of each image, nats"
        ),
    }
