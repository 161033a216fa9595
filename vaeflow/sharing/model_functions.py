"""The functions of each family of models, to export."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from vaeflow.estimators import evidence
from vaeflow.losses import code_bound
from vaeflow.models import MUNIT, VAE, AutoEncoder, CodeModel, FlowModel, HierarchicalVAE, submodel
from vaeflow.models.munit import DOMAINS, Domain, other_domain
from vaeflow.sharing.export import Argument, Function

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


def latent_functions(model: VAE | HierarchicalVAE | AutoEncoder) -> dict[str, Function]:
    """Lists the functions of a variational auto-encoder.

    ``encode(images, keys)`` gives the posterior mean, ``decode(latents)`` images,
    ``sample(keys, temperature)`` an image for each key, and ``elbo(images, keys)`` the bound on the
    log-likelihood in nats, from one sample of the latents. An auto-encoder has the first two alone.
    Where the model has classes, each takes `labels` as its last argument.

    Args:
      model: The model.

    Returns:
      The functions by name, for `save_exported`.
    """
    images = Argument(("b", *model.decoder.image_shape), jnp.uint8, "images, 0 to 255")
    latents = Argument(("b", model.num_latents), jnp.float32, "latents")
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
        found = evidence(model, variables, batch, typed_keys(keys), context_key=condition)
        return found.log_weights()[0]

    observed, last = {"images": images, "keys": KEYS}, {}
    if getattr(model, "num_classes", None) is not None:
        last = {"labels": Argument(("b",), jnp.int32, f"labels, 0 to {model.num_classes - 1}")}
    functions = {
        "encode": Function(encode, observed | last, "the posterior mean of each image"),
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
    images = Argument(("b", *coder.decoder.image_shape), jnp.uint8, "images, 0 to 255")
    maps = {
        name: Argument(
            ("b", *prior.network.map_shape), jnp.int32, f"codes, 0 to {prior.network.num_codes - 1}"
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
    if model.num_classes is not None:
        last = {"labels": Argument(("b",), jnp.int32, f"labels, 0 to {model.num_classes - 1}")}
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
    coder, to = model.coder(domain), other_domain(domain)
    meaning = f"images of domain {domain}, 0 to 255"
    images = {"images": Argument(("b", *coder.image_shape), jnp.uint8, meaning)}
    latents = model.coder(to).style.posterior.num_latents
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
