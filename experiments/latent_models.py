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
    prior: Literal["standard", "mixture", "vamp", "flow"] = "standard"
    """A standard normal; a mixture of Gaussians; a mixture of the posteriors of learned
    pseudo-inputs; or a flow of affine couplings."""
    components: int = 500
    """Components of the prior where it is a mixture, of either kind."""
    likelihood: Literal[
        "bernoulli", "continuous-bernoulli", "gaussian", "discretized-logistic", "categorical"
    ] = "bernoulli"
    """Of an entry of an image. bernoulli: images are binarised anew each time. The next two are
    densities of images with uniform noise; the last two probabilities of their 256 levels."""

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


NETWORKS = {
    "dense": (vf.encoders.DenseEncoder, vf.decoders.DenseDecoder),
    "convolutional": (vf.encoders.ConvolutionalEncoder, vf.decoders.ConvolutionalDecoder),
    "residual": (vf.encoders.ResidualEncoder, vf.decoders.ResidualDecoder),
    "gated": (vf.encoders.GatedEncoder, vf.decoders.GatedDecoder),
}


LIKELIHOODS = {
    "bernoulli": (vf.decoders.Bernoulli, vf.models.Binarizer),
    "continuous-bernoulli": (vf.decoders.ContinuousBernoulli, vf.models.UniformDequantizer),
    "gaussian": (vf.decoders.Gaussian, vf.models.UniformDequantizer),
    "discretized-logistic": (vf.decoders.DiscretizedLogisticMixture, vf.models.Levels),
    "categorical": (vf.decoders.LevelCategorical, vf.models.Levels),
}
"""Likelihoods by name, and what becomes of images for each."""


def posterior(config: ModelConfig) -> nn.Module:
    """The module that makes q(z | x) of features."""
    if config.posterior == "full":
        return vf.encoders.FullGaussian(config.latents)
    diagonal = vf.encoders.DiagonalGaussian(config.latents)
    if config.posterior == "diagonal":
        return diagonal
    shape, steps = (config.latents,), config.posterior_steps
    flows: dict[str, Any] = {
        "planar": vf.flows.Planar(shape, steps=steps),
        "sylvester": vf.flows.Sylvester(
            shape, steps=steps, basis=vf.flows.OrthogonalBasis(min(32, config.latents))
        ),
        "iaf": vf.flows.InverseAutoregressive(shape, steps=steps, width=320),
    }
    return vf.encoders.FlowPosterior(diagonal, flows[config.posterior])


def prior(config: ModelConfig, shape: tuple[int, int, int]) -> nn.Module | None:
    """The module that gives p(z), or None for a standard normal."""
    if config.prior == "mixture":
        return vf.bases.GaussianMixture((config.latents,), config.components)
    if config.prior == "vamp":
        return vf.models.VampPrior(config.components, shape)
    if config.prior == "flow":
        return vf.models.FlowModel(vf.flows.RealNVP((config.latents,), steps=6, width=128))
    return None


def build(
    config: ModelConfig, shape: tuple[int, int, int]
) -> vf.models.VAE | vf.models.AutoEncoder:
    """Builds a model of images of a shape."""
    encoder, decoder = NETWORKS[config.network]
    likelihood, observation = LIKELIHOODS[config.likelihood]
    explain = vf.decoders.Decoder(decoder(), likelihood(), shape)
    if config.posterior == "none":
        return vf.models.AutoEncoder(encoder(), config.latents, explain, observation())
    return vf.models.VAE(
        vf.encoders.Encoder(encoder(), posterior(config)),
        explain,
        observation(),
        prior(config, shape),
    )
