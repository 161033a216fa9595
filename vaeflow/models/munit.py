"""MUNIT: unpaired image translation by domain-shared content and domain-specific style.

`MUNIT` holds a `ContentStyleCoder` for each of two domains; `MUNITGame` adds the discriminators
that it is trained against. Source: Huang, Liu, Belongie & Kautz 2018.
"""

from __future__ import annotations

from typing import Literal

import distrax
import flax.linen as nn
import jax
from jaxtyping import Array, Float, UInt8

from vaeflow._util.arrays import row_keys
from vaeflow.models.preprocessing import quantize_levels, quantize_values

Domain = Literal["a", "b"]
DOMAINS: tuple[Domain, Domain] = ("a", "b")


class ContentStyleCoder(nn.Module):
    """An auto-encoder of one domain, with separate codes of content and style.

    Attributes:
      content: From values to a map of content, such as `vaeflow.encoders.ContentEncoder`.
      style: q(s | x): a `vaeflow.encoders.Encoder`, such as of a `StyleEncoder` network and a
        `PointMassPosterior`, whose `standard` is the prior of styles.
      decoder: ``decoder(content, style, shape=...)`` to values, such as
        `vaeflow.decoders.AdaINDecoder`.
      image_shape: Height, width and channels of an image.
    """

    content: nn.Module
    style: nn.Module
    decoder: nn.Module
    image_shape: tuple[int, int, int]

    def __call__(
        self, values: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch map_height map_width content"], distrax.Distribution]:
        """Encodes values; see `MUNIT.encode_values`."""
        if values.shape[1:] != tuple(self.image_shape):
            raise ValueError(
                f"images must be [batch, *{self.image_shape}], got shape {values.shape}"
            )
        return self.content(values), self.style(values)

    def decode(
        self,
        content: Float[Array, "batch map_height map_width content"],
        style: Float[Array, "batch style"],
    ) -> Float[Array, "batch height width channel"]:
        """Decodes content and style to values from -1 to 1."""
        latents = self.style.posterior.num_latents
        if style.shape[1:] != (latents,):
            raise ValueError(f"styles must be [batch, {latents}], got shape {style.shape}")
        return self.decoder(content, style, shape=self.image_shape)


class MUNIT(nn.Module):
    """Two auto-encoders with exchangeable content codes: one content, many styles.

    An image of a domain is x = G(c, s), with a content c from a space that the domains share and a
    style s ~ N(0, I) from a space of the domain. A translation decodes the content of an image of
    one domain with a style of the other, sampled from the prior or encoded from an example.

    It is the player "generator" of a `MUNITGame`, which trains it; see `vaeflow.losses.munit`. The
    domains are named "a" and "b"; their images have equal heights and widths, but may differ in
    channels.

    Source: Huang, Liu, Belongie & Kautz 2018, "Multimodal unsupervised image-to-image translation".

    Attributes:
      a: The auto-encoder of domain a, a `ContentStyleCoder`.
      b: That of domain b.
    """

    a: ContentStyleCoder
    b: ContentStyleCoder

    def __call__(
        self,
        a: UInt8[Array, "batch height width channel_a"],
        b: UInt8[Array, "batch height width channel_b"],
    ) -> dict[Domain, Float[Array, "batch height width channel"]]:
        """Translates images in both directions, each in the style of the image in its row.

        It runs all of the model once; `init` calls it with the first batches.

        Returns:
          Values of each domain, under its name.
        """
        codes = {"a": self.encode(a, "a"), "b": self.encode(b, "b")}
        return {
            to: self.decode_values(codes[other_domain(to)][0], codes[to][1].mean(), to)
            for to in DOMAINS
        }

    def encode_values(
        self, values: Float[Array, "batch height width channel"], domain: Domain
    ) -> tuple[Float[Array, "batch map_height map_width content"], distrax.Distribution]:
        """Encodes values from -1 to 1: the content, and the distribution of the style.

        Raises:
          ValueError: If there is no such domain, or its images are of another shape.
        """
        return self.coder(domain)(values)

    def decode_values(
        self,
        content: Float[Array, "batch map_height map_width content"],
        style: Float[Array, "batch style"],
        domain: Domain,
    ) -> Float[Array, "batch height width channel"]:
        """Decodes content and style to values from -1 to 1 of a domain.

        Raises:
          ValueError: If there is no such domain, or its contents or styles are of another shape.
        """
        return self.coder(domain).decode(content, style)

    def encode(
        self, images: UInt8[Array, "batch height width channel"], domain: Domain
    ) -> tuple[Float[Array, "batch map_height map_width content"], distrax.Distribution]:
        """Encodes images of a domain: the content, and the distribution of the style.

        Raises:
          ValueError: As for `encode_values`, or if the images aren't uint8.
        """
        return self.encode_values(normalize_images(images), domain)

    def decode(
        self,
        content: Float[Array, "batch map_height map_width content"],
        style: Float[Array, "batch style"],
        domain: Domain,
    ) -> UInt8[Array, "batch height width channel"]:
        """Decodes content and style to images of a domain.

        Raises:
          ValueError: As for `decode_values`.
        """
        return denormalize_images(self.decode_values(content, style, domain))

    def translate(
        self,
        images: UInt8[Array, "batch height width channel"],
        to: Domain,
        style: Float[Array, "batch style"] | None = None,
        rng: Array | None = None,
    ) -> UInt8[Array, "batch height width channel"]:
        """Translates images of the other domain.

        Args:
          images: Images of the domain that isn't `to`.
          to: The domain to translate to.
          style: Styles of that domain, such as ``encode(examples, to)[1].mean()``; None to
            sample them from the prior.
          rng: A typed key, or one for each row, to sample styles.

        Raises:
          ValueError: As for `encode` and `decode`, or unless one of style and rng is given.
        """
        if (style is None) == (rng is None):
            raise ValueError("translate takes either style or rng, got both or neither")
        if style is None:
            style = self.draw_styles(rng, images.shape[0], to)
        content, _ = self.encode(images, other_domain(to))
        return self.decode(content, style, to)

    def draw_styles(
        self, rng: Array, num_samples: int, domain: Domain
    ) -> Float[Array, "num_samples style"]:
        """Samples styles of a domain from the prior.

        Args:
          rng: A typed key, or one for each style.
          num_samples: Number of styles.
          domain: The domain.
        """
        prior = self.coder(domain).style.posterior.standard()
        return jax.vmap(lambda key: prior.sample(seed=key))(row_keys(rng, num_samples))

    def coder(self, domain: Domain) -> ContentStyleCoder:
        """The auto-encoder of a domain."""
        return getattr(self, check_domain(domain))


class Discriminators(nn.Module):
    """A discriminator of each domain, such as `vaeflow.nn.MultiScaleDiscriminator`.

    Attributes:
      a: From values from -1 to 1 of domain a to a tuple of maps, one for each scale: near 1 where a
        patch looks real, near 0 where it looks translated.
      b: The same of domain b.
    """

    a: nn.Module
    b: nn.Module

    def __call__(
        self, values: Float[Array, "batch height width channel"], domain: Domain
    ) -> tuple[Float[Array, "batch map_height map_width"], ...]:
        """Scores values of a domain."""
        return getattr(self, check_domain(domain))(values)


class MUNITGame(nn.Module):
    """A `MUNIT` and the discriminators that it is trained against.

    The parameters of the two are trained as players named as the attributes, by
    `vaeflow.losses.munit` and `vaeflow.losses.munit_discriminator`, and separated by
    `vaeflow.models.submodel`.

    Attributes:
      generator: The `MUNIT`.
      discriminator: The `Discriminators`.
    """

    generator: MUNIT
    discriminator: Discriminators

    def __call__(
        self,
        a: UInt8[Array, "batch height width channel_a"],
        b: UInt8[Array, "batch height width channel_b"],
    ) -> dict[Domain, tuple[Float[Array, "batch map_height map_width"], ...]]:
        """Scores translations in both directions once; `init` calls it with the first batch."""
        translated = self.generator(a, b)
        return {domain: self.discriminator(translated[domain], domain) for domain in DOMAINS}


def other_domain(domain: Domain) -> Domain:
    """Returns the domain that isn't `domain`."""
    return "b" if check_domain(domain) == "a" else "a"


def check_domain(domain: Domain) -> Domain:
    """Returns the domain.

    Raises:
      ValueError: If there is no such domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain must be 'a' or 'b', got {domain!r}")
    return domain


def normalize_images(
    images: UInt8[Array, "batch height width channel"],
) -> Float[Array, "batch height width channel"]:
    """Scales uint8 images to values from -1 to 1, the centres of 256 cells.

    Raises:
      ValueError: If the images aren't uint8.
    """
    return (quantize_levels(images, 8) + 0.5) / 128 - 1


def denormalize_images(
    values: Float[Array, "*batch height width channel"],
) -> UInt8[Array, "*batch height width channel"]:
    """Converts values from -1 to 1 to uint8 images."""
    return quantize_values(values / 2, 8)
