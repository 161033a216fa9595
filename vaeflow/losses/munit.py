"""The two objectives of MUNIT: of its auto-encoders and of its discriminators.

Least-squares adversarial terms, and l1 reconstructions of images, contents and styles, as in Huang,
Liu, Belongie & Kautz 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.arrays import LOCAL, Axis, row_keys
from vaeflow._util.checks import check_number, entry
from vaeflow.distributions.transformed import sample_per_example
from vaeflow.models.base import submodel
from vaeflow.models.munit import DOMAINS, MUNIT, Domain, normalize_images, other_domain
from vaeflow.typing import Aux

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
NOISE = 16
"""First number folded into the key of a row, beyond those that a step folds in for each player."""

Values = Float[Array, "batch height width channel"]


def munit(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, dict[str, Array]],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
    reconstruction: Float[Array, ""] | float = 10.0,
    content: Float[Array, ""] | float = 1.0,
    style: Float[Array, ""] | float = 1.0,
    cycle: Float[Array, ""] | float = 0.0,
) -> tuple[Float[Array, ""], Aux]:
    r"""Computes the objective of MUNIT's auto-encoders, the player "generator".

    The sum over both domains, here for images of a translated to b, of

    - `adversarial`: (D_b(x_ab) - 1)^2 of the translation x_ab = G_b(c_a, s'), with s' ~ N(0, I),
      averaged over patches and summed over scales;
    - `reconstruction`: ``|G_a(c_a, s_a) - x_a|``, of the image from its content and style;
    - `content`: ``|c(x_ab) - c_a|``, of the translation's content;
    - `style`: ``|s(x_ab) - s'|``, of its style;
    - `cycle`: ``|G_a(c(x_ab), s_a) - x_a|``, of the translation back,

    each an average over dimensions, times its weight. Images are scaled to values from -1 to 1.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    equations 1 to 5 and section 5.1, for the cycle section 4; the squares are of Mao, Li, Xie, Lau,
    Wang & Smolley 2017, "Least squares generative adversarial networks".

    Args:
      model: A `vaeflow.models.MUNITGame`, or a module with its two players.
      batch: ``{"a": {"image": [batch, height, width, channel]}, "b": ...}``, with unpaired rows.
      reconstruction: Weight.
      content: Weight.
      style: Weight.
      cycle: Weight; the number 0 skips the term and its computation.

    Returns:
      The loss, and as metrics each term that isn't skipped, without its weight: under its name and
      the domain of the original for `reconstruction`, `content` and `cycle`, such as `content_a`,
      and the target domain for `adversarial` and `style`.

    Raises:
      ValueError: If the model has no such players, or images have the wrong shape or type, or
        their numbers differ between the domains, or a weight is below zero.
    """
    del axis, train
    reconstruction = check_number("reconstruction", reconstruction, 0)
    content, style = check_number("content", content, 0), check_number("style", style, 0)
    cycle = check_number("cycle", cycle, 0)
    generator, params = submodel(model, variables, GENERATOR)
    discriminator = submodel(model, variables, DISCRIMINATOR)
    values = _observe(batch)
    keys = row_keys(rng, len(values["a"]))
    contents, styles = {}, {}
    for number, domain in enumerate(DOMAINS):
        contents[domain], posterior = _encode(generator, params, values[domain], domain)
        of_domain = _folded(keys, NOISE + len(DOMAINS) + number)
        styles[domain] = sample_per_example(posterior, of_domain, 1)[0][0]
    styles_of_prior = _sample_styles(generator, params, keys)
    terms: list[tuple[Array | float, str, Array]] = []
    for to in DOMAINS:
        source = other_domain(to)
        content_pair = _interleave(contents[to], contents[source])
        style_pair = _interleave(styles[to], styles_of_prior[to])
        decoded = _decode(generator, params, content_pair, style_pair, to)
        reconstructed, translated = _deinterleave(decoded)
        recovered, posterior = _encode(generator, params, translated, to)
        outputs = _discriminate(discriminator, translated, to)
        terms += [
            (1.0, f"adversarial_{to}", _least_squares(outputs, 1.0)),
            (reconstruction, f"reconstruction_{to}", _l1(reconstructed, values[to])),
            (content, f"content_{source}", _l1(recovered, contents[source])),
            (style, f"style_{to}", _l1(posterior.mean(), styles_of_prior[to])),
        ]
        if _is_used(cycle):
            back = _decode(generator, params, recovered, styles[source], source)
            terms.append((cycle, f"cycle_{source}", _l1(back, values[source])))
    loss = sum(weight * value for weight, _, value in terms)
    return loss, Aux({name: value for _, name, value in terms}, {})


def munit_discriminator(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, dict[str, Array]],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
) -> tuple[Float[Array, ""], Aux]:
    """Computes the objective of MUNIT's discriminators, the player "discriminator".

    (D(x) - 1)^2 + D(x')^2 of images x of a domain and translations x' to it, averaged over patches,
    summed over scales and both domains. No gradient reaches the auto-encoders.

    Source: Huang et al. 2018, section 5.1; Mao, Li, Xie, Lau, Wang & Smolley 2017, "Least squares
    generative adversarial networks", equation 9, without its halves.

    Args:
      model: As for `munit`.
      batch: As for `munit`.

    Returns:
      The loss, and the metrics `real_a`, `translated_a`, `real_b` and `translated_b`: the terms for
      images of each domain, and for translations to it.
    """
    del axis, train
    generator, params = submodel(model, variables, GENERATOR)
    discriminator = submodel(model, variables, DISCRIMINATOR)
    values = _observe(batch)
    keys = row_keys(rng, len(values["a"]))
    styles_of_prior = _sample_styles(generator, params, keys)
    terms = {}
    for to in DOMAINS:
        source = other_domain(to)
        content, _ = _encode(generator, params, values[source], source)
        translated = _decode(generator, params, content, styles_of_prior[to], to)
        translated = jax.lax.stop_gradient(translated)
        outputs = _discriminate(discriminator, _interleave(values[to], translated), to)
        real, fake = zip(*map(_deinterleave, outputs), strict=True)
        terms[f"real_{to}"] = _least_squares(real, 1.0)
        terms[f"translated_{to}"] = _least_squares(fake, 0.0)
    return sum(terms.values()), Aux(terms, {})


def _observe(batch: dict[str, dict[str, Array]]) -> dict[Domain, Values]:
    """Scales the images of both domains to values from -1 to 1.

    Raises:
      ValueError: If their numbers differ, or they aren't uint8.
    """
    values = {domain: normalize_images(entry(entry(batch, domain), "image")) for domain in DOMAINS}
    rows = [len(of_domain) for of_domain in values.values()]
    if len(set(rows)) > 1:
        raise ValueError(
            f"batch must hold as many images of a as of b, got {rows[0]} and {rows[1]}"
        )
    return values


def _encode(
    generator: MUNIT, params: dict[str, Any], values: Values, domain: Domain
) -> tuple[Float[Array, "batch map_height map_width content"], distrax.Distribution]:
    return generator.apply(params, values, domain, method="encode_values")


def _decode(
    generator: MUNIT, params: dict[str, Any], content: Array, style: Array, domain: Domain
) -> Values:
    return generator.apply(params, content, style, domain, method="decode_values")


def _sample_styles(
    generator: MUNIT, params: dict[str, Any], keys: Array
) -> dict[Domain, Float[Array, "batch style"]]:
    """Samples a style of each domain for each row from the prior."""
    return {
        domain: generator.apply(
            params, _folded(keys, NOISE + number), len(keys), domain, method="draw_styles"
        )
        for number, domain in enumerate(DOMAINS)
    }


def _folded(keys: Array, number: int) -> Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _interleave(first: Array, second: Array) -> Array:
    """Interleaves the rows of two arrays, for a single call of a network.

    Rows of equal number stay on one device.
    """
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _deinterleave(rows: Array) -> tuple[Array, Array]:
    """Inverts `_interleave`."""
    pairs = rows.reshape(-1, 2, *rows.shape[1:])
    return pairs[:, 0], pairs[:, 1]


def _discriminate(
    player: tuple[nn.Module, dict[str, Any]], values: Values, domain: Domain
) -> tuple[Float[Array, "batch map_height map_width"], ...]:
    discriminator, params = player
    return discriminator.apply(params, values, domain)


def _least_squares(outputs: Sequence[Array], target: float) -> Float[Array, ""]:
    """Squared distances from a target, averaged over patches and summed over scales."""
    return sum(jnp.mean(jnp.square(output - target)) for output in outputs)


def _l1(first: Array, second: Array) -> Float[Array, ""]:
    """Mean of absolute differences."""
    return jnp.mean(jnp.abs(first - second))


def _is_used(weight: Array | float) -> bool:
    """Whether a term has to be computed: a traced weight may be anything."""
    return isinstance(weight, jax.Array) or weight != 0
