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
    posterior: Literal["diagonal", "full", "planar", "sylvester", "iaf"] = "diagonal"
    """A Gaussian, diagonal or full; or a diagonal one through a flow whose parameters follow the
    image."""
    posterior_steps: int = 16
    """Steps of the posterior's flow."""
    prior: Literal["standard", "mixture", "vamp", "flow"] = "standard"
    """A standard normal; a mixture of Gaussians; a mixture of the posteriors of learned
    pseudo-inputs; or a flow of affine couplings."""
    components: int = 500
    """Components of the prior where it is a mixture, of either kind."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          ValueError: Naming the field, the value given and what is allowed.
        """
        for name in ("latents", "posterior_steps", "components"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")


NETWORKS = {
    "dense": (vf.encoders.DenseEncoder, vf.decoders.DenseDecoder),
    "convolutional": (vf.encoders.ConvolutionalEncoder, vf.decoders.ConvolutionalDecoder),
    "residual": (vf.encoders.ResidualEncoder, vf.decoders.ResidualDecoder),
    "gated": (vf.encoders.GatedEncoder, vf.decoders.GatedDecoder),
}


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


def build(config: ModelConfig, shape: tuple[int, int, int]) -> vf.models.VAE:
    """Builds a model of binarised images of a shape."""
    encoder, decoder = NETWORKS[config.network]
    return vf.models.VAE(
        vf.encoders.Encoder(encoder(), posterior(config)),
        vf.decoders.Decoder(decoder(), vf.decoders.Bernoulli(), shape),
        vf.models.Binarizer(),
        prior(config, shape),
    )
