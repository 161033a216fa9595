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
    prior: Literal["standard", "mixture", "vamp", "flow", "autoregressive"] = "standard"
    """A standard normal; a mixture of Gaussians; a mixture of the posteriors of learned
    pseudo-inputs; a flow of affine couplings; or each latent a Gaussian given those before it."""
    components: int = 500
    """Components of the prior where it is a mixture, of either kind."""
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
    if config.prior == "autoregressive":  # one step: a second one would go through them backwards
        flow = vf.flows.MaskedAutoregressive((config.latents,), steps=1, width=256)
        return vf.models.FlowModel(flow)
    return None


def build(
    config: ModelConfig, shape: tuple[int, int, int]
) -> vf.models.VAE | vf.models.HierarchicalVAE:
    """Builds a model of binarised images of a shape."""
    encoder, decoder = NETWORKS[config.network]
    likelihood = vf.decoders.Decoder(decoder(), vf.decoders.Bernoulli(), shape)
    observation = vf.models.Binarizer()
    if config.levels:
        return vf.models.HierarchicalVAE(
            encoder(), config.levels, likelihood, observation, classes=config.classes
        )
    return vf.models.VAE(
        vf.encoders.Encoder(encoder(), posterior(config)),
        likelihood,
        observation,
        prior(config, shape),
        config.classes,
    )
