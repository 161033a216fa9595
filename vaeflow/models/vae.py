"""Variational auto-encoders, deterministic auto-encoders and the FactorVAE.

A `VAE` is an encoder q(z | x), a decoder p(x | z), a prior p(z) and the preprocessing of images;
which distributions these are is up to the parts, all of them called by the protocols of
`vaeflow.typing`.
"""

from __future__ import annotations

from collections.abc import Sequence

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow._util.arrays import row_keys
from vaeflow._util.checks import as_array, bound, check_count, check_part, encode_labels
from vaeflow.decoders import BernoulliLikelihood, Decoder, DenseDecoder
from vaeflow.distributions.grouped import WHOLE, groups_of, per_dim_kl, pieces_of
from vaeflow.distributions.transformed import sample_per_example
from vaeflow.encoders import DenseEncoder, DiagonalGaussianPosterior, Encoder
from vaeflow.models.base import Latents, LatentVariableModel
from vaeflow.models.preprocessing import Binarizer, Dequantized, check_observation
from vaeflow.typing import Preprocessor, Prior


class VAE(LatentVariableModel):
    """Latents z ~ p(z), images x ~ p(x | z), and an approximate posterior q(z | x).

    The methods `posterior`, `prior` and `likelihood` return the three distributions, over the
    values that the `observation` computes from images; `infer` samples from the posterior.
    Objectives are in `vaeflow.losses`.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes"; Rezende, Mohamed & Wierstra
    2014, "Stochastic backpropagation and approximate inference in deep generative models".

    Attributes:
      encoder: q(z | x): a `vaeflow.encoders.Encoder`.
      decoder: p(x | z): a `vaeflow.decoders.Decoder`.
      observation: Preprocessing of uint8 images: `Binarizer` for Bernoulli likelihoods,
        `Discretizer` for likelihoods of discrete intensities, a dequantizer for densities.
      prior_model: p(z): a module of `vaeflow.bases` or a `FlowModel` of vectors; None for the
        default prior of the posterior: standard normals, equally likely categories.
      num_classes: Number of classes where all three are given labels, otherwise None. The prior
        takes the labels if it needs them, and else is shared by all classes.
    """

    encoder: nn.Module
    decoder: nn.Module
    observation: Preprocessor
    prior_model: Prior | None = None
    num_classes: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_part("encoder", self.encoder, "an Encoder", ("posterior",))
        if self.prior_model is not None:
            self._check_prior()

    @nn.nowrap
    def _check_prior(self) -> None:
        prior, latents = self.prior_model, self.encoder.posterior.num_latents
        check_part("prior_model", prior, "a prior", ("needs_labels", "initialize"))
        shape = getattr(prior, "event_shape", (latents,))
        if tuple(shape) != (latents,):
            raise ValueError(
                f"prior_model must have events of the shape of the latents, {(latents,)}, got a "
                f"{type(prior).__name__} of {tuple(shape)}"
            )
        images = tuple(getattr(prior, "image_shape", None) or self.decoder.image_shape)
        if images != tuple(self.decoder.image_shape):
            raise ValueError(
                f"prior_model must have the images of the decoder, {self.decoder.image_shape}, got "
                f"{images}"
            )
        classes = getattr(prior, "num_classes", None) or self.num_classes
        if prior.needs_labels and (self.num_classes is None or classes != self.num_classes):
            raise ValueError(
                f"num_classes must be that of the prior's labels, {classes}, got {self.num_classes}"
            )

    @bound
    def __call__(
        self, images: UInt8[Array, "batch height width channel"], *, context: Array | None = None
    ) -> Latents:
        """Runs inference and the decoder once; `init` calls it with the first batch.

        Everything data-dependent is initialised from that batch. Keys come from the rng "params" in
        `init` and from "sample" otherwise.

        Args:
          images: A batch of images.
          context: Labels ``[batch]``, or None.
        """
        images = as_array("images", images)
        keys = row_keys(
            self.make_rng("params" if self.is_initializing() else "sample"), images.shape[0]
        )
        values = self.observe(images, keys).values
        if self.is_initializing() and self.prior_model is not None:
            first = self.posterior(values, context=context).sample(seed=keys[0])
            self.prior_model.initialize(values, first, context=self._prior_context(context))
        latents = self.infer(values, keys, context=context)
        self.decoder(latents.z, context=encode_labels(context, self.num_classes), data=values)
        return latents

    @bound
    def posterior(
        self,
        values: Float[Array, "batch height width channel"],
        *,
        context: Array | None = None,
    ) -> distrax.Distribution:
        """Builds q(z | x), ``[batch]`` distributions of latents, for observed values.

        Raises:
          ValueError: If the context isn't one label for each row where there are classes, and None
            where there are none.
        """
        values = as_array("values", values)
        labels = encode_labels(context, self.num_classes, rows=values.shape[0])
        return self.encoder(values, context=labels)

    @bound
    def prior(
        self, *, context: Array | None = None, temperature: float = 1.0
    ) -> distrax.Distribution:
        """Builds p(z).

        Args:
          context: Labels ``[*batch]``; ignored unless the prior needs them.
          temperature: Factor of the deviations, as `vaeflow.bases` take it.

        Raises:
          ValueError: If a `vaeflow.bases.VampPrior` is given a temperature, or the encoder that it
            calls needs labels.
        """
        if context is not None:
            encode_labels(context, self.num_classes)
        if self.prior_model is None:
            return self.encoder.posterior.standard(temperature)
        return self.prior_model(
            context=self._prior_context(context), temperature=temperature, encoder=self.posterior
        )

    def _prior_context(self, context: Array | None) -> Array | None:
        return context if self.prior_model.needs_labels else None

    @property
    def num_latents(self) -> int:
        """Number of latents."""
        return self.encoder.posterior.num_latents

    @bound
    def infer(
        self,
        values: Float[Array, "batch height width channel"],
        rng: Array,
        num_samples: int = 1,
        *,
        context: Array | None = None,
    ) -> Latents:
        """Samples q(z | x), with densities under q and p; the flow of a posterior isn't inverted.

        Args:
          values: Observed values.
          rng: A typed key, or one for each row.
          num_samples: Number of samples of each row.
          context: Labels ``[batch]``, or None.

        Raises:
          ValueError: If the posterior has no density, as `vaeflow.encoders.PointMassPosterior`;
            there is no sample; or the context is wrong, as for `posterior`.
        """
        check_count("num_samples", num_samples)
        values = as_array("values", values)
        head = self.encoder.posterior
        if not head.has_density:
            raise ValueError(
                "a posterior must have a density for there to be a bound, got a "
                f"{type(head).__name__}; an AutoEncoder takes single values"
            )
        posterior, prior = self.posterior(values, context=context), self.prior(context=context)
        z, log_q = sample_per_example(posterior, row_keys(rng, values.shape[0]), num_samples)
        if groups_of(posterior).keys() & groups_of(prior).keys() - {WHOLE}:
            densities = _log_prob_by_group(posterior, z), _log_prob_by_group(prior, z)
        else:
            densities = {WHOLE: log_q}, {WHOLE: prior.log_prob(z)}
        return Latents(z, *densities, per_dim_kl(posterior, prior), posterior, prior)

    @bound
    def encode(
        self,
        images: UInt8[Array, "batch height width channel"],
        rng: Array,
        *,
        context: Array | None = None,
    ) -> Float[Array, "batch latent"]:
        """Computes the posterior mean, or of a flow posterior the image of its base's mean."""
        posterior = self.posterior(self.observe(images, rng).values, context=context)
        return self.encoder.posterior.location(posterior)


def _log_prob_by_group(distribution: distrax.Distribution, z: Array) -> dict[str, Array]:
    pieces = pieces_of(distribution, z)
    return {name: part.log_prob(pieces[name]) for name, part in groups_of(distribution).items()}


def dense_vae(
    image_shape: Sequence[int], num_latents: int, *, hidden_sizes: Sequence[int] = (200, 200)
) -> VAE:
    """Builds the usual VAE of small images: dense networks, normal latents, Bernoulli pixels.

    q(z | x) is a diagonal normal, p(z) a standard normal, and p(x | z) is of images that a
    `Binarizer` samples, whose intensities are probabilities. The networks have tanh units.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes", appendix C.

    Args:
      image_shape: Shape of an image: (height, width, channel).
      num_latents: Number of latents.
      hidden_sizes: Sizes of the layers of the encoder; the decoder has them in reverse.

    Raises:
      ValueError: If the shape isn't of an image, or a size isn't an integer of at least 1.
    """
    shape, sizes = tuple(image_shape), tuple(hidden_sizes)
    if len(shape) != 3:
        raise ValueError(f"image_shape must be (height, width, channel), got {shape}")
    for size in shape:
        check_count("image_shape", size)
    for size in sizes:
        check_count("hidden_sizes", size)
    return VAE(
        Encoder(DenseEncoder(sizes), DiagonalGaussianPosterior(num_latents)),
        Decoder(DenseDecoder(sizes[::-1]), BernoulliLikelihood(), shape),
        Binarizer(),
    )


class AutoEncoder(nn.Module):
    """A deterministic code z = f(x) and a decoder p(x | z), without a distribution of z.

    Nothing is learned of the space between the codes of the data, so there are no samples. Its
    loss is `vaeflow.losses.reconstruction`.

    Source: Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks".

    Attributes:
      network: From images to features, such as `vaeflow.encoders.DenseEncoder`.
      num_latents: Number of latents, linear in the features.
      decoder: p(x | z): a `vaeflow.decoders.Decoder`.
      observation: Preprocessing of uint8 images, as for `VAE`.
    """

    network: nn.Module
    num_latents: int
    decoder: nn.Module
    observation: Preprocessor

    def __post_init__(self):
        check_observation(self.observation, self.decoder)
        super().__post_init__()

    @nn.compact
    def __call__(self, values: Array) -> Float[Array, "batch latent"]:
        """Computes the latents of observed values, ``[batch, height, width, channel]``.

        `init` takes those of the first batch, or its uint8 images, which it observes.
        """
        if self.is_initializing() and values.dtype == jnp.uint8:
            values = self.observe(values, self.make_rng("params")).values
        latents = nn.Dense(self.num_latents, name="latent")(self.network(values))
        if self.is_initializing():
            self.decoder(latents, data=values)
        return latents

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Converts images to values; arguments as for `VAE.observe`."""
        images = as_array("images", images)
        return self.observation(images, row_keys(rng, images.shape[0]))

    @bound
    def likelihood(self, z: Float[Array, "*batch latent"]) -> distrax.Distribution:
        """Builds p(x | z), one distribution of observed values for each z."""
        return self.decoder(z)

    @bound
    def encode(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Float[Array, "batch latent"]:
        """Computes the latents of images."""
        return self(self.observe(images, rng).values)

    @bound
    def decode(
        self, z: Float[Array, "*batch latent"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Returns the means of p(x | z) as images."""
        return self.observation.quantize(self.likelihood(z).mean())


class FactorVAE(nn.Module):
    """A `VAE`, and the discriminator that estimates its total correlation.

    The parameters of the two are trained as players named as the attributes, by
    `vaeflow.losses.factor_vae` and `vaeflow.losses.factor_vae_discriminator`, and separated by
    `vaeflow.models.submodel`: once trained, "model" is a VAE like any other.

    Source: Kim & Mnih 2018, "Disentangling by factorising".

    Attributes:
      model: The auto-encoder.
      discriminator: From latents to the logit that they come from the aggregate posterior and not
        from the product of its marginals, such as `vaeflow.nn.LatentDiscriminator`.
    """

    model: VAE
    discriminator: nn.Module

    @bound
    def __call__(
        self, images: UInt8[Array, "batch height width channel"], *, context: Array | None = None
    ) -> Float[Array, " batch"]:
        """Computes the logits once; `init` calls it with the first batch, as it does a `VAE`.

        Args:
          images: A batch of images.
          context: Labels ``[batch]``, or None.
        """
        return self.discriminator(self.model(images, context=context).z[0])
