"""Networks and layers, as Flax modules: conditioners, masked, causal and convolutional networks."""

from vaeflow.nn.autoregressive_map import AutoregressiveMapNetwork, UpsampledConditioner
from vaeflow.nn.blocks import GatedConv, ResidualBlock
from vaeflow.nn.conditioners import MLP, GlowNetwork, ResidualNetwork, TimeDependentMLP
from vaeflow.nn.convolution import Conv, ZeroConv, relu
from vaeflow.nn.discriminators import (
    LatentDiscriminator,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    leaky_relu,
)
from vaeflow.nn.lipschitz import LipschitzMLP, SpectralConv
from vaeflow.nn.masked import MaskedMLP
from vaeflow.nn.pixel_cnn import GatedPixelCNN
from vaeflow.nn.pixel_snail import PixelSNAIL

__all__ = [
    "MLP",
    "AutoregressiveMapNetwork",
    "Conv",
    "GatedConv",
    "GatedPixelCNN",
    "GlowNetwork",
    "LatentDiscriminator",
    "LipschitzMLP",
    "MaskedMLP",
    "MultiScaleDiscriminator",
    "PatchDiscriminator",
    "PixelSNAIL",
    "ResidualBlock",
    "ResidualNetwork",
    "SpectralConv",
    "TimeDependentMLP",
    "UpsampledConditioner",
    "ZeroConv",
    "leaky_relu",
    "relu",
]
