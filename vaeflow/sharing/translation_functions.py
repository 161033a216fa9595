"""What a model that translates between two domains is exported as."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, UInt32

from vaeflow.models import MUNIT
from vaeflow.models.munit import DOMAINS, Domain, other
from vaeflow.sharing.flow_functions import KEYS, typed_keys
from vaeflow.sharing.functions import Argument, Function


def translation_functions(model: MUNIT) -> dict[str, Function]:
    """Lists the functions of a MUNIT.

    For domains X and Y, which are "a" and "b" or the reverse: ``reconstruct_X(images)`` gives what
    a domain's own content and style make, ``translate_X_to_Y(images, styles)`` translations in
    given styles, ``encode_style_X(images)`` the styles of examples, and ``sample_style_X(keys)``
    a style from the prior for each key.

    Args:
      model: The model.

    Returns:
      The functions by name, for `save_exported`.
    """
    functions: dict[str, Function] = {}
    for domain in DOMAINS:
        functions |= _functions_of(model, domain)
    return functions


def _functions_of(model: MUNIT, domain: Domain) -> dict[str, Function]:
    coder, to = model.coder(domain), other(domain)
    meaning = f"images of domain {domain}, 0 to 255"
    images = {"images": Argument(("b", *coder.shape), jnp.uint8, meaning)}
    latents = model.coder(to).style.posterior.latents
    styles = Argument(("b", latents), jnp.float32, f"styles of domain {to}")

    def reconstruct(variables, images: Array) -> Array:
        content, style = model.apply(variables, images, domain, method="encode")
        return model.apply(variables, content, style.mean(), domain, method="decode")

    def translate(variables, images: Array, styles: Array) -> Array:
        return model.apply(variables, images, to, styles, method="translate")

    def encode_style(variables, images: Array) -> Array:
        return model.apply(variables, images, domain, method="encode")[1].mean()

    def sample_style(variables, keys: UInt32[Array, "batch 2"]) -> Array:
        return model.apply(variables, typed_keys(keys), keys.shape[0], domain, method="draw_styles")

    style_of = f"styles of domain {domain}"
    return {
        f"reconstruct_{domain}": Function(reconstruct, images, meaning),
        f"translate_{domain}_to_{to}": Function(
            translate, images | {"styles": styles}, f"images of domain {to}, 0 to 255"
        ),
        f"encode_style_{domain}": Function(encode_style, images, style_of),
        f"sample_style_{domain}": Function(sample_style, {"keys": KEYS}, style_of),
    }
