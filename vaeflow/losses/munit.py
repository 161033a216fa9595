"""The objectives of MUNIT: the auto-encoders', and that of the discriminators beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaeflow._util.axis import LOCAL, Axis
from vaeflow._util.random import row_keys
from vaeflow.distributions.transformed import sample_per_example
from vaeflow.estimators import Aux
from vaeflow.models.base import submodel
from vaeflow.models.munit import DOMAINS, MUNIT, Domain, observe, other

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
NOISE = 16
"""Number of a row's first draw, beyond those by which a step tells the keys of players apart."""

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
    r"""Computes what MUNIT's auto-encoders minimise, the player "generator".

    The sum over both domains, here for images a of the one and b of the other, of

    - `adversarial`: (D_b(x_ab) - 1)^2 of the translation x_ab = G_b(c_a, s'), with s' ~ N(0, I),
      averaged over patches and summed over scales;
    - `reconstruction`: ``|G_a(c_a, s_a) - x_a|``, of what the domain's own style makes;
    - `content`: ``|c(x_ab) - c_a|``, of the translation's content;
    - `style`: ``|s(x_ab) - s'|``, of its style;
    - `cycle`: ``|G_a(c(x_ab), s_a) - x_a|``, of the translation back,

    each an average over entries, times its weight. Values of images are from -1 to 1.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation",
    equations 1 to 5 and section 5.1, for the cycle section 4; the squares are of Mao, Li, Xie, Lau,
    Wang & Smolley 2017, "Least squares generative adversarial networks".

    Args:
      model: A `vaeflow.models.MUNITGame`, or a module with its two players.
      variables: The model's variables, those of each player under its name.
      batch: ``{"a": {"image": [batch, height, width, channel]}, "b": ...}``, whose rows have
        nothing to do with each other.
      rng: A typed key, or one for each row.
      axis: Unused, as the rows aren't coupled.
      train: Unused, as the model behaves alike in training and in evaluation.
      reconstruction: Weight.
      content: Weight.
      style: Weight.
      cycle: Weight; the number 0 leaves the term out, and what it costs.

    Returns:
      The loss, and as metrics each term that isn't left out, without its weight: under its name and
      the domain of the original for `reconstruction`, `content` and `cycle`, such as `content_a`,
      and the domain translated to for `adversarial` and `style`.

    Raises:
      ValueError: If the model has no such players, or images have the wrong shape or type, or
        aren't as many of both domains.
    """
    del axis, train
    generator, own = submodel(model, variables, GENERATOR)
    judge = submodel(model, variables, DISCRIMINATOR)
    values = _observe(batch)
    keys = row_keys(rng, len(values["a"]))
    contents, styles = {}, {}
    for number, domain in enumerate(DOMAINS):
        contents[domain], posterior = _encode(generator, own, values[domain], domain)
        of_domain = _folded(keys, NOISE + len(DOMAINS) + number)
        styles[domain] = sample_per_example(posterior, of_domain, 1)[0][0]
    drawn = _draw_styles(generator, own, keys)
    terms: dict[str, Array] = {}
    for to in DOMAINS:
        source = other(to)
        both = _side_by_side(contents[to], contents[source])
        made = _decode(generator, own, both, _side_by_side(styles[to], drawn[to]), to)
        again, translated = _apart(made)
        recovered, posterior = _encode(generator, own, translated, to)
        terms[f"adversarial_{to}"] = _squares(_judge(judge, translated, to), 1.0)
        terms[f"reconstruction_{to}"] = _distance(again, values[to])
        terms[f"content_{source}"] = _distance(recovered, contents[source])
        terms[f"style_{to}"] = _distance(posterior.mean(), drawn[to])
        if _is_used(cycle):
            back = _decode(generator, own, recovered, styles[source], source)
            terms[f"cycle_{source}"] = _distance(back, values[source])
    weights = {
        "adversarial": 1.0,
        "reconstruction": reconstruction,
        "content": content,
        "style": style,
        "cycle": cycle,
    }
    loss = sum(weights[name.rpartition("_")[0]] * value for name, value in terms.items())
    return loss, Aux(terms, {})


def munit_discriminator(
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, dict[str, Array]],
    rng: Array,
    *,
    axis: Axis = LOCAL,
    train: bool = True,
) -> tuple[Float[Array, ""], Aux]:
    """Computes what MUNIT's discriminators minimise, the player "discriminator".

    (D(x) - 1)^2 + D(x')^2 of images x of a domain and translations x' to it, averaged over patches,
    summed over scales and both domains. No gradient reaches the auto-encoders.

    Source: Huang et al. 2018, section 5.1; Mao, Li, Xie, Lau, Wang & Smolley 2017, "Least squares
    generative adversarial networks", equation 9, without its halves.

    Args:
      model: As for `munit`.
      variables: As for `munit`.
      batch: As for `munit`.
      rng: As for `munit`.
      axis: As for `munit`.
      train: As for `munit`.

    Returns:
      The loss, and the metrics `real_a`, `translated_a`, `real_b` and `translated_b`: the terms for
      images of each domain, and for translations to it.

    Raises:
      ValueError: As for `munit`.
    """
    del axis, train
    generator, own = submodel(model, variables, GENERATOR)
    judge = submodel(model, variables, DISCRIMINATOR)
    values = _observe(batch)
    keys = row_keys(rng, len(values["a"]))
    drawn = _draw_styles(generator, own, keys)
    terms = {}
    for to in DOMAINS:
        content, _ = _encode(generator, own, values[other(to)], other(to))
        translated = jax.lax.stop_gradient(_decode(generator, own, content, drawn[to], to))
        judgements = _judge(judge, _side_by_side(values[to], translated), to)
        real, fake = zip(*map(_apart, judgements), strict=True)
        terms[f"real_{to}"] = _squares(real, 1.0)
        terms[f"translated_{to}"] = _squares(fake, 0.0)
    return sum(terms.values()), Aux(terms, {})


def _observe(batch: dict[str, dict[str, Array]]) -> dict[Domain, Values]:
    """Values of the images of both domains.

    Raises:
      ValueError: If they aren't as many, or aren't uint8.
    """
    values = {domain: observe(batch[domain]["image"]) for domain in DOMAINS}
    rows = [len(of_domain) for of_domain in values.values()]
    if len(set(rows)) > 1:
        raise ValueError(
            f"batch must hold as many images of a as of b, got {rows[0]} and {rows[1]}"
        )
    return values


def _encode(
    generator: MUNIT, own: dict[str, Any], values: Values, domain: Domain
) -> tuple[Float[Array, "batch map_height map_width content"], distrax.Distribution]:
    return generator.apply(own, values, domain, method="encode_values")


def _decode(
    generator: MUNIT, own: dict[str, Any], content: Array, style: Array, domain: Domain
) -> Values:
    return generator.apply(own, content, style, domain, method="decode_values")


def _draw_styles(
    generator: MUNIT, own: dict[str, Any], keys: Array
) -> dict[Domain, Float[Array, "batch style"]]:
    """Draws a style of each domain for each row."""
    return {
        domain: generator.apply(
            own, _folded(keys, NOISE + number), len(keys), domain, method="draw_styles"
        )
        for number, domain in enumerate(DOMAINS)
    }


def _folded(keys: Array, number: int) -> Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _side_by_side(first: Array, second: Array) -> Array:
    """Puts the rows of two arrays in turn into one, for a single call of a network.

    Rows of equal number stay on one device.
    """
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _apart(both: Array) -> tuple[Array, Array]:
    """Undoes `_side_by_side`."""
    pairs = both.reshape(-1, 2, *both.shape[1:])
    return pairs[:, 0], pairs[:, 1]


def _judge(
    judge: tuple[nn.Module, dict[str, Any]], values: Values, domain: Domain
) -> tuple[Float[Array, "batch map_height map_width"], ...]:
    discriminator, own = judge
    return discriminator.apply(own, values, domain)


def _squares(judgements: Sequence[Array], target: float) -> Float[Array, ""]:
    """Squared distances from a target, averaged over patches and summed over scales."""
    return sum(jnp.mean(jnp.square(judgement - target)) for judgement in judgements)


def _distance(first: Array, second: Array) -> Float[Array, ""]:
    """The mean of absolute differences."""
    return jnp.mean(jnp.abs(first - second))


def _is_used(weight: Array | float) -> bool:
    """Whether a term has to be computed: a traced weight may be anything."""
    return isinstance(weight, jax.Array) or weight != 0
