"""Variational auto-encoders, auto-encoders and FactorVAE."""

from __future__ import annotations

import distrax
import flax.linen as nn
from jaxtyping import Array, Float, UInt8

from vaeflow._util.random import row_keys
from vaeflow.bases import VampPrior
from vaeflow.distributions import Grouped, Transformed
from vaeflow.distributions.grouped import WHOLE, per_dim_kl
from vaeflow.distributions.transformed import sample_per_example
from vaeflow.flows.base import prepare_context
from vaeflow.models.base import Latents, LatentVariableModel
from vaeflow.models.flow_model import FlowModel
from vaeflow.models.preprocessing import Dequantized


class VAE(LatentVariableModel):
    """Latents z ~ p(z), images x ~ p(x | z), and an approximate posterior q(z | x).

    The methods `posterior`, `prior` and `likelihood` answer the three distributions, over what the
    `observation` makes of an image; `infer` draws from the posterior. Objectives are in
    `vaeflow.losses`.

    Source: Kingma & Welling 2014, "Auto-encoding variational Bayes"; Rezende, Mohamed & Wierstra
    2014, "Stochastic backpropagation and approximate inference in deep generative models".

    Attributes:
      encoder: q(z | x): a `vaeflow.encoders.Encoder`.
      decoder: p(x | z): a `vaeflow.decoders.Decoder`.
      observation: What becomes of uint8 images: `Binarizer` for Bernoulli likelihoods, `Discretizer` for
        those of levels, a dequantizer for densities.
      prior_model: p(z): a module of `vaeflow.bases`, a `FlowModel` of vectors or a `VampPrior`;
        None for the one that goes with the posterior: standard normals, equal categories.
      num_classes: Number of classes where all three are given labels, otherwise None. The prior takes
        the labels if it has `num_classes` too, and else is that of all classes.
    """

    encoder: nn.Module
    decoder: nn.Module
    observation: nn.Module
    prior_model: nn.Module | None = None
    num_classes: int | None = None

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], context: Array | None = None
    ) -> Latents:
        """Runs inference and the decoder once; `init` calls it with the first batch.

        Everything data-dependent is initialised from that batch. Keys come from the rng "params" in
        `init` and from "sample" otherwise.

        Args:
          images: A batch of images.
          context: Labels ``[batch]``, or None.
        """
        keys = row_keys(
            self.make_rng("params" if self.is_initializing() else "sample"), images.shape[0]
        )
        values = self.observe(images, keys).values
        if isinstance(self.prior_model, VampPrior):
            self.prior_model.pseudo_inputs(values)
        elif self.is_initializing() and isinstance(self.prior_model, FlowModel):
            first = self.posterior(values, context).sample(seed=keys[0])
            self.prior_model(first, self._labels_of_prior(context))
        latents = self.infer(values, keys, context=context)
        self.decoder(latents.z, prepare_context(context, self.num_classes), data=values)
        return latents

    def posterior(
        self,
        values: Float[Array, "batch height width channel"],
        context: Array | None = None,
    ) -> distrax.Distribution:
        """Builds q(z | x), ``[batch]`` distributions of latents, for observed values."""
        return self.encoder(values, prepare_context(context, self.num_classes))

    def prior(
        self, context: Array | None = None, *, temperature: float = 1.0
    ) -> distrax.Distribution:
        """Builds p(z).

        Args:
          context: Labels ``[*batch]``; ignored unless the prior has classes of its own.
          temperature: Factor of deviations, as `vaeflow.bases` take it; a `VampPrior` has none.

        Raises:
          ValueError: If a `VampPrior` meets a temperature, or classes.
        """
        if isinstance(self.prior_model, VampPrior):
            if temperature != 1.0 or self.num_classes is not None:
                raise ValueError(
                    "a VampPrior takes neither temperature nor classes, got temperature="
                    f"{temperature} and classes={self.num_classes}"
                )
            return self.prior_model(encoder=self.encoder)
        if self.prior_model is None:
            return self.encoder.posterior.standard(temperature)
        labels = self._labels_of_prior(context)
        return self.prior_model(context=labels, temperature=temperature)

    def _labels_of_prior(self, context: Array | None) -> Array | None:
        """The labels, where the prior has classes."""
        parts = [self.prior_model]
        if isinstance(self.prior_model, FlowModel):
            parts = [self.prior_model.flow, self.prior_model.base]
        own = any(getattr(part, "num_classes", None) is not None for part in parts)
        return context if own else None

    @property
    def num_latents(self) -> int:
        """Number of latents."""
        return self.encoder.posterior.num_latents

    def infer(
        self,
        values: Float[Array, "batch height width channel"],
        rng: Array,
        num_samples: int = 1,
        context: Array | None = None,
    ) -> Latents:
        """Draws samples of q(z | x) with their densities under q and p; no inverse is taken of q.

        Args:
          values: Observed values.
          rng: A typed key, or one for each row.
          num_samples: Number of samples of each row.
          context: Labels ``[batch]``, or None.

        Raises:
          ValueError: If the posterior is a `vaeflow.encoders.PointMassPosterior`.
        """
        posterior, prior = self.posterior(values, context), self.prior(context)
        if isinstance(getattr(posterior, "distribution", None), distrax.Deterministic):
            raise ValueError(
                "a posterior must have a density for there to be a bound, got a PointMass; an "
                "AutoEncoder takes single values"
            )
        z, log_q = sample_per_example(posterior, row_keys(rng, values.shape[0]), num_samples)
        kl = per_dim_kl(posterior, prior)
        if isinstance(posterior, Grouped) and isinstance(prior, Grouped):
            return Latents(z, _by_group(posterior, z), _by_group(prior, z), kl)
        return Latents(z, {WHOLE: log_q}, {WHOLE: prior.log_prob(z)}, kl)

    def encode(
        self,
        images: UInt8[Array, "batch height width channel"],
        rng: Array,
        context: Array | None = None,
    ) -> Float[Array, "batch latent"]:
        """Returns the middle of q(z | x): its mean, carried through its flow where it has one."""
        posterior = self.posterior(self.observe(images, rng).values, context)
        if isinstance(posterior, Transformed):
            return posterior.bijector.forward(posterior.distribution.mean())
        return posterior.mean()


def _by_group(distribution: Grouped, z: Array) -> dict[str, Array]:
    pieces = distribution.split(z)
    return {name: part.log_prob(pieces[name]) for name, part in distribution.groups.items()}


class AutoEncoder(nn.Module):
    """Latents z = f(x) that a decoder explains the image by: no distribution is put on them.

    What lies between the latents of the data means nothing to it, so it has no samples; see
    `vaeflow.losses.elbo` for its loss.

    Source: Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks".

    Attributes:
      network: From images to features, such as `vaeflow.encoders.DenseEncoder`.
      num_latents: Number of latents, linear in the features.
      decoder: p(x | z): a `vaeflow.decoders.Decoder`.
      observation: What becomes of uint8 images, as for `VAE`.
    """

    network: nn.Module
    num_latents: int
    decoder: nn.Module
    observation: nn.Module

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch latent"]:
        """Computes the latents of observed values, which `init` takes the first batch of."""
        latents = nn.Dense(self.num_latents, name="latent")(self.network(values))
        if self.is_initializing():
            self.decoder(latents, data=values)
        return latents

    def observe(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Dequantized:
        """Turns images into values; arguments as for `VAE.observe`."""
        return self.observation(images, row_keys(rng, images.shape[0]))

    def likelihood(self, z: Float[Array, "*batch latent"]) -> distrax.Distribution:
        """Builds p(x | z), one distribution of observed values for each z."""
        return self.decoder(z)

    def encode(
        self, images: UInt8[Array, "batch height width channel"], rng: Array
    ) -> Float[Array, "batch latent"]:
        """Computes the latents of images."""
        return self(self.observe(images, rng).values)

    def decode(
        self, z: Float[Array, "*batch latent"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Shows the means of p(x | z) as images."""
        return self.observation.quantize(self.likelihood(z).mean())


class FactorVAE(nn.Module):
    """A variational auto-encoder, and the discriminator that measures its total correlation.

    The parameters of the two, of players called as the attributes, are trained by
    `vaeflow.losses.factor_vae` and `vaeflow.losses.factor_vae_discriminator`, and taken apart by
    `vaeflow.models.submodel`: once trained, "model" is a VAE as any other.

    Source: Kim & Mnih 2018, "Disentangling by factorising".

    Attributes:
      model: The auto-encoder.
      discriminator: From latents to the logit that they come from the aggregate posterior and not
        from the product of its marginals, such as `vaeflow.nn.LatentDiscriminator`.
    """

    model: VAE
    discriminator: nn.Module

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], context: Array | None = None
    ) -> Float[Array, " batch"]:
        """Computes the logits once; `init` calls it with the first batch, as it does a `VAE`.

        Args:
          images: A batch of images.
          context: Labels ``[batch]``, or None.
        """
        return self.discriminator(self.model(images, context).z[0])
