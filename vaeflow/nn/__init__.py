"""Building blocks of networks, as Flax modules."""

from vaeflow.nn.activation import relu
from vaeflow.nn.blocks import GatedConv, ResidualBlock
from vaeflow.nn.causal_attention import CausalAttention
from vaeflow.nn.causal_convolution import CausalConv
from vaeflow.nn.conditioners import MLP, GlowNetwork, ResidualNetwork
from vaeflow.nn.convolution import Conv, ZeroConv, convolution
from vaeflow.nn.discriminator import LatentDiscriminator, leaky_relu
from vaeflow.nn.doubled_convolution import UpsampleConv
from vaeflow.nn.instance_norm import (
    ImageLayerNorm,
    adaptive_instance_norm,
    instance_norm,
)
from vaeflow.nn.level_above import UpsampledConditioner, resize_nearest
from vaeflow.nn.lipschitz import LipschitzMLP, lip_swish
from vaeflow.nn.masked import MaskedMLP
from vaeflow.nn.normalization import ActNormConv, data_dependent_param
from vaeflow.nn.normalized_block import InstanceNormBlock
from vaeflow.nn.patch_discriminator import MultiScaleDiscriminator, PatchDiscriminator
from vaeflow.nn.pixel_cnn import GatedCausalBlock, GatedPixelCNN
from vaeflow.nn.pixel_snail import CausalAttentionBlock, CausalResidualBlock, PixelSNAIL
from vaeflow.nn.raster import AutoregressiveMapNetwork
from vaeflow.nn.spectral import SpectralConv, clip_spectral_norm, spectral_bound
from vaeflow.nn.time_dependent import TimeDependentMLP
from vaeflow.nn.transposed import TransposedConv

__all__ = [
    "MLP",
    "ActNormConv",
    "AutoregressiveMapNetwork",
    "CausalAttention",
    "CausalAttentionBlock",
    "CausalConv",
    "CausalResidualBlock",
    "Conv",
    "GatedCausalBlock",
    "GatedConv",
    "GatedPixelCNN",
    "GlowNetwork",
    "ImageLayerNorm",
    "InstanceNormBlock",
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
    "TransposedConv",
    "UpsampleConv",
    "UpsampledConditioner",
    "ZeroConv",
    "adaptive_instance_norm",
    "clip_spectral_norm",
    "convolution",
    "data_dependent_param",
    "instance_norm",
    "leaky_relu",
    "lip_swish",
    "relu",
    "resize_nearest",
    "spectral_bound",
]
