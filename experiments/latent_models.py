"""Variational auto-encoders of images by name of their parts."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn

import vaeflow as vf


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which encoder, posterior, prior and decoder."""

    network: Literal["dense", "convolutional", "residual", "gated"] = "dense"
    """Networks of encoder and decoder. dense: two layers of 200 units with tanh, as in the
    published code of importance-weighted auto-encoders. gated: as with Sylvester flows."""
    latents: int = 50
    """Number of latents."""
    posterior: Literal["diagonal", "full", "planar", "sylvester", "iaf", "none"] = "diagonal"
    """A Gaussian, diagonal or full; or a diagonal one through a flow whose parameters follow the
    image. none: latents without a distribution, an auto-encoder."""
    posterior_steps: int = 16
    """Steps of the posterior's flow."""
    prior: Literal["standard", "mixture", "vamp", "flow", "autoregressive"] = "standard"
    """A standard normal; a mixture of Gaussians; a mixture of the posteriors of learned
    pseudo-inputs; a flow of affine couplings; or each latent a Gaussian given those before it."""
    components: int = 500
    """Components of the prior where it is a mixture, of either kind."""
    likelihood: Literal[
        "bernoulli", "continuous-bernoulli", "gaussian", "discretized-logistic", "categorical"
    ] = "bernoulli"
    """Of an entry of an image. bernoulli: images are binarised anew each time. The next two are
    densities of images with uniform noise; the last two probabilities of their 256 levels."""
    levels: tuple[int, ...] = ()
    """Numbers of latents of the levels of a hierarchy, from the one beside the image up, instead of
    `latents`; empty for a model of one level."""
    classes: int | None = None
    """Number of classes of the data where encoder and decoder are given labels."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name in ("latents", "posterior_steps", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.posterior == "none" and self.prior != "standard":
            raise ValueError(
                f"model.prior is for models with a posterior, got {self.prior} with posterior none"
            )
        if any(size < 1 for size in self.levels):
            raise ValueError(f"model.levels must each be at least 1, got {self.levels}")
        if self.levels and (self.posterior, self.prior) != ("diagonal", "standard"):
            raise ValueError(
                "model.levels need a diagonal posterior and a standard prior, got "
                f"{self.posterior} and {self.prior}"
            )
        if self.classes is not None and self.prior == "vamp":
            raise ValueError(
                f"model.classes and a vamp prior exclude each other, got {self.classes}"
            )


NETWORKS = {
    "dense": (vf.encoders.DenseEncoder, vf.decoders.DenseDecoder),
    "convolutional": (vf.encoders.ConvolutionalEncoder, vf.decoders.ConvolutionalDecoder),
    "residual": (vf.encoders.ResidualEncoder, vf.decoders.ResidualDecoder),
    "gated": (vf.encoders.GatedEncoder, vf.decoders.GatedDecoder),
}


LIKELIHOODS = {
    "bernoulli": (vf.decoders.BernoulliLikelihood, vf.models.Binarizer),
    "continuous-bernoulli": (
        vf.decoders.ContinuousBernoulliLikelihood,
        vf.models.UniformDequantizer,
    ),
    "gaussian": (vf.decoders.GaussianLikelihood, vf.models.UniformDequantizer),
    "discretized-logistic": (
        vf.decoders.DiscretizedLogisticMixtureLikelihood,
        vf.models.Discretizer,
    ),
    "categorical": (vf.decoders.CategoricalLikelihood, vf.models.Discretizer),
}
"""Likelihoods by name, and what becomes of images for each."""


def posterior(config: ModelConfig) -> nn.Module:
    """The module that makes q(z | x) of features."""
    if config.posterior == "full":
        return vf.encoders.FullGaussianPosterior(config.latents)
    diagonal = vf.encoders.DiagonalGaussianPosterior(config.latents)
    if config.posterior == "diagonal":
        return diagonal
    shape, steps = (config.latents,), config.posterior_steps
    flows: dict[str, Any] = {
        "planar": vf.flows.PlanarFlow(shape, num_steps=steps),
        "sylvester": vf.flows.SylvesterFlow(
            shape, num_steps=steps, basis=vf.flows.OrthogonalBasis(16)
        ),
        "iaf": vf.flows.InverseAutoregressiveFlow(shape, num_steps=steps, hidden_sizes=(320, 320)),
    }
    return vf.encoders.FlowPosterior(diagonal, flows[config.posterior])


def prior(config: ModelConfig, shape: tuple[int, int, int]) -> nn.Module | None:
    """The module that gives p(z), or None for a standard normal."""
    if config.prior == "mixture":
        return vf.bases.GaussianMixtureBase((config.latents,), num_components=config.components)
    if config.prior == "vamp":
        return vf.bases.VampPrior(num_components=config.components, image_shape=shape)
    if config.prior == "flow":
        return vf.models.FlowModel(
            vf.flows.RealNVP((config.latents,), num_steps=6, hidden_features=128)
        )
    if config.prior == "autoregressive":  # one step: a second one would go through them backwards
        flow = vf.flows.MaskedAutoregressiveFlow(
            (config.latents,), num_steps=1, hidden_sizes=(256, 256)
        )
        return vf.models.FlowModel(flow)
    return None


def build(
    config: ModelConfig, shape: tuple[int, int, int]
) -> vf.models.VAE | vf.models.HierarchicalVAE | vf.models.AutoEncoder:
    """Builds a model of images of a shape."""
    encoder, decoder = NETWORKS[config.network]
    likelihood, observation = LIKELIHOODS[config.likelihood]
    explain = vf.decoders.Decoder(decoder(), likelihood(), shape)
    if config.posterior == "none":
        return vf.models.AutoEncoder(encoder(), config.latents, explain, observation())
    if config.levels:
        return vf.models.HierarchicalVAE(
            encoder(), config.levels, explain, observation(), num_classes=config.classes
        )
    return vf.models.VAE(
        vf.encoders.Encoder(encoder(), posterior(config)),
        explain,
        observation(),
        prior(config, shape),
        config.classes,
    )
