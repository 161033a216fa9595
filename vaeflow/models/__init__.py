"""Models of data, composed of flows, encoders, decoders and quantizers."""

from vaeflow.models.base import Latents, merge_submodels, submodel
from vaeflow.models.code_prior import CodeModel, CodePrior
from vaeflow.models.flow_model import FlowModel
from vaeflow.models.hierarchical_vae import HierarchicalVAE
from vaeflow.models.munit import MUNIT, ContentStyleCoder, Discriminators, MUNITGame
from vaeflow.models.preprocessing import (
    Binarizer,
    Discretizer,
    UniformDequantizer,
    VariationalDequantizer,
)
from vaeflow.models.vae import VAE, AutoEncoder, FactorVAE, dense_vae
from vaeflow.models.vqvae import VQVAE, VQVAE2, CodeAutoEncoder

__all__ = [
    "MUNIT",
    "VAE",
    "VQVAE",
    "VQVAE2",
    "AutoEncoder",
    "Binarizer",
    "CodeAutoEncoder",
    "CodeModel",
    "CodePrior",
    "ContentStyleCoder",
    "Discretizer",
    "Discriminators",
    "FactorVAE",
    "FlowModel",
    "HierarchicalVAE",
    "Latents",
    "MUNITGame",
    "UniformDequantizer",
    "VariationalDequantizer",
    "dense_vae",
    "merge_submodels",
    "submodel",
]
