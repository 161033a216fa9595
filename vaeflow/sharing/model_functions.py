"""Exportable functions of trained models, by family: flows, VAEs, models with codes, MUNIT."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from vaeflow.estimators import evidence
from vaeflow.losses import code_bound
from vaeflow.models import MUNIT, VAE, AutoEncoder, CodeModel, FlowModel, HierarchicalVAE, submodel
from vaeflow.models.munit import DOMAINS, Domain, other_domain
from vaeflow.sharing.export import ArgumentSpec, FunctionSpec

Functions = dict[str, FunctionSpec]

KEYS = ArgumentSpec(("b", 2), jnp.uint32, "jax.random.key_data of a threefry2x32 key for each row")


def export_functions(
    model: nn.Module, *, level_names: Sequence[str] | None = None
) -> dict[str, FunctionSpec]:
    """Returns the functions of a model that can be used without vaeflow, by name.

    - `FlowModel` without a context: ``log_prob(data, keys)``, in nats, of each example (without a
      dequantizer it takes no keys), and ``sample(keys, temperature)``, an example for each key,
      from noise of that key alone. Its images are uint8 if it has a dequantizer, its data float32
      otherwise.
    - `VAE`, `HierarchicalVAE`: ``encode(images, keys)``, the posterior mean, ``decode(latents)``,
      ``sample(keys, temperature)``, an image for each key, and ``elbo(images, keys)``, in nats,
      from one sample of the latents. `AutoEncoder`: the first two. With classes, each takes
      ``labels`` as its last argument.
    - `CodeModel`: ``encode_NAME(images, keys)``, the map of codes of each level,
      ``decode(NAME, ...)``, images of the maps of all levels, ``sample(keys, temperature)``, and
      ``bound(images, keys)``, the lower bound on the log-likelihood in nats. Where the priors take
      labels, so do the last two, as their last argument.
    - `MUNIT`, for domains X and Y, which are "a" and "b" or the reverse: ``reconstruct_X(images)``,
      ``translate_X_to_Y(images, styles)``, ``encode_style_X(images)``, the style means of examples,
      and ``sample_style_X(keys)``, a style from the prior for each key.

    Args:
      model: The model.
      level_names: Names of the levels of a `CodeModel`, from the top; "codes" for a single level
        by default. Other models have none.

    Returns:
      The functions by name, for `save_exported`.

    Raises:
      ValueError: If the model is of another family, or the names don't fit its levels.
    """
    if isinstance(model, CodeModel):
        return _code_functions(model, ("codes",) if level_names is None else tuple(level_names))
    if level_names is not None:
        raise ValueError(
            f"level_names must be None for a {type(model).__name__}, got {level_names}"
        )
    return _functions(model)


@functools.singledispatch
def _functions(model: nn.Module) -> Functions:
    raise ValueError(
        "model must be a FlowModel, VAE, HierarchicalVAE, AutoEncoder, CodeModel or MUNIT, got "
        f"{type(model).__name__}"
    )


def typed_keys(keys: UInt32[Array, "batch 2"]) -> Array:
    """Returns typed keys of their data."""
    return jax.random.wrap_key_data(keys, impl="threefry2x32")


def _labels(num_classes: int | None) -> dict[str, ArgumentSpec]:
    if num_classes is None:
        return {}
    return {"labels": ArgumentSpec(("b",), jnp.int32, f"labels, 0 to {num_classes - 1}")}


@_functions.register
def _flow_functions(model: FlowModel) -> Functions:
    images = model.dequantizer is not None
    data = ArgumentSpec(
        ("b", *model.flow.event_shape),
        jnp.uint8 if images else jnp.float32,
        "images, 0 to 255" if images else "data",
    )
    temperature = ArgumentSpec(
        (), jnp.float32, "factor of the noise's deviations; 1 is the density's"
    )

    def log_prob(variables, data: Array, keys: UInt32[Array, "batch 2"] | None = None):
        rng = None if keys is None else typed_keys(keys)
        return model.apply(variables, data, rng, method="log_prob")

    def sample(variables, keys: UInt32[Array, "batch 2"], temperature: Float[Array, ""]):
        base = model.apply(variables, temperature=temperature, method="noise")
        noise = jax.vmap(lambda key: base.sample(seed=key))(typed_keys(keys))
        return model.apply(variables, noise, method="decode")

    return {
        "log_prob": FunctionSpec(
            log_prob,
            {"images": data, "keys": KEYS} if images else {"data": data},
            "log-likelihood of each example, in nats"
            + (", at the dequantization noise of its key" if images else ""),
        ),
        "sample": FunctionSpec(
            sample, {"keys": KEYS, "temperature": temperature}, data.description
        ),
    }


@_functions.register
def _latent_functions(model: VAE | HierarchicalVAE | AutoEncoder) -> Functions:
    images = ArgumentSpec(("b", *model.decoder.image_shape), jnp.uint8, "images, 0 to 255")
    latents = ArgumentSpec(("b", model.num_latents), jnp.float32, "latents")
    temperature = ArgumentSpec(
        (), jnp.float32, "factor of the prior's deviations; 1 is the model's"
    )

    def encode(variables, images: Array, keys: UInt32[Array, "batch 2"], labels=None) -> Array:
        return model.apply(variables, images, typed_keys(keys), context=labels, method="encode")

    def decode(variables, latents: Array, labels=None) -> Array:
        return model.apply(variables, latents, context=labels, method="decode")

    def sample(
        variables, keys: UInt32[Array, "batch 2"], temperature: Float[Array, ""], labels=None
    ) -> Array:
        def sample_one(key: Array, label: Array | None) -> Array:
            prior = model.apply(variables, context=label, temperature=temperature, method="prior")
            return prior.sample(seed=key)

        z = jax.vmap(sample_one)(typed_keys(keys), labels)
        return model.apply(variables, z, context=labels, method="decode")

    def elbo(variables, images: Array, keys: UInt32[Array, "batch 2"], labels=None) -> Array:
        batch = {"image": images, "label": labels}
        context_key = None if labels is None else "label"
        terms = evidence(model, variables, batch, typed_keys(keys), context_key=context_key)
        return terms.log_weights()[0]

    observed, last = {"images": images, "keys": KEYS}, _labels(getattr(model, "num_classes", None))
    functions = {
        "encode": FunctionSpec(encode, observed | last, "posterior mean of each image"),
        "decode": FunctionSpec(decode, {"latents": latents} | last, images.description),
    }
    if isinstance(model, AutoEncoder):
        return functions
    bound = "lower bound on the log-likelihood of each image, nats"
    return {
        **functions,
        "sample": FunctionSpec(
            sample, {"keys": KEYS, "temperature": temperature} | last, images.description
        ),
        "elbo": FunctionSpec(elbo, observed | last, bound),
    }


def _code_functions(model: CodeModel, names: tuple[str, ...]) -> Functions:
    if len(names) != len(model.priors):
        raise ValueError(f"level_names must name {len(model.priors)} levels, got {names}")
    coder = model.auto_encoder
    images = ArgumentSpec(("b", *coder.decoder.image_shape), jnp.uint8, "images, 0 to 255")
    maps = {
        name: ArgumentSpec(
            ("b", *prior.network.map_shape), jnp.int32, f"codes, 0 to {prior.network.num_codes - 1}"
        )
        for name, prior in zip(names, model.priors, strict=True)
    }
    temperature = ArgumentSpec(
        (), jnp.float32, "temperature of the priors' logits; 1 is the model's"
    )

    def encode(level: int):
        def call(variables, images: Array, keys: UInt32[Array, "batch 2"]) -> Array:
            params = submodel(model, variables, "auto_encoder")[1]
            return coder.apply(params, images, typed_keys(keys), method="encode")[level]

        return call

    def decode(variables, *codes: Array) -> Array:
        return coder.apply(submodel(model, variables, "auto_encoder")[1], codes, method="decode")

    def sample(
        variables, keys: UInt32[Array, "batch 2"], temperature: Float[Array, ""], labels=None
    ) -> Array:
        def sample_one(key: Array, label: Array | None) -> Array:
            labels = None if label is None else label[None]
            codes = model.apply(
                variables, key, 1, context=labels, temperature=temperature, method="sample_codes"
            )
            return jax.tree.map(lambda codes: codes[0], codes)

        return decode(variables, *jax.vmap(sample_one)(typed_keys(keys), labels))

    def bound(variables, images: Array, keys: UInt32[Array, "batch 2"], labels=None) -> Array:
        batch = {"image": images, "label": labels}
        return code_bound(model, variables, batch, typed_keys(keys)).total()

    observed, last = {"images": images, "keys": KEYS}, _labels(model.num_classes)
    return {
        **{
            f"encode_{name}": FunctionSpec(encode(level), observed, argument.description)
            for level, (name, argument) in enumerate(maps.items())
        },
        "decode": FunctionSpec(decode, maps, images.description),
        "sample": FunctionSpec(
            sample, {"keys": KEYS, "temperature": temperature} | last, images.description
        ),
        "bound": FunctionSpec(
            bound, observed | last, "lower bound on the log-likelihood of each image, nats"
        ),
    }


@_functions.register
def _translation_functions(model: MUNIT) -> Functions:
    functions: Functions = {}
    for domain in DOMAINS:
        functions |= _domain_functions(model, domain)
    return functions


def _domain_functions(model: MUNIT, domain: Domain) -> Functions:
    coder, to = model.coder(domain), other_domain(domain)
    description = f"images of domain {domain}, 0 to 255"
    images = {"images": ArgumentSpec(("b", *coder.image_shape), jnp.uint8, description)}
    num_latents = model.coder(to).style.posterior.num_latents
    styles = ArgumentSpec(("b", num_latents), jnp.float32, f"styles of domain {to}")

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
        f"reconstruct_{domain}": FunctionSpec(reconstruct, images, description),
        f"translate_{domain}_to_{to}": FunctionSpec(
            translate, images | {"styles": styles}, f"images of domain {to}, 0 to 255"
        ),
        f"encode_style_{domain}": FunctionSpec(encode_style, images, style_of),
        f"sample_style_{domain}": FunctionSpec(sample_style, {"keys": KEYS}, style_of),
    }
