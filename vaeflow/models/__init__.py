"""Models of data, composed of flows, encoders, decoders and quantizers."""

from vaeflow.models.auto_encoder import AutoEncoder
from vaeflow.models.code_auto_encoder import CodeAutoEncoder
from vaeflow.models.code_model import CodeModel
from vaeflow.models.code_prior import CodePrior
from vaeflow.models.dequantizer import Dequantized, UniformDequantizer, VariationalDequantizer
from vaeflow.models.factor_vae import FactorVAE
from vaeflow.models.flow_model import FlowModel
from vaeflow.models.hierarchical_vae import HierarchicalVAE
from vaeflow.models.latents import Latents
from vaeflow.models.munit import MUNIT, ContentStyleCoder, Discriminators, MUNITGame
from vaeflow.models.observation import Binarizer, Discretizer
from vaeflow.models.players import merge_submodels, submodel
from vaeflow.models.vae import VAE
from vaeflow.models.vamp_prior import VampPrior
from vaeflow.models.vqvae import VQVAE
from vaeflow.models.vqvae2 import VQVAE2

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
    "Dequantized",
    "Discretizer",
    "Discriminators",
    "FactorVAE",
    "FlowModel",
    "HierarchicalVAE",
    "Latents",
    "MUNITGame",
    "UniformDequantizer",
    "VampPrior",
    "VariationalDequantizer",
    "merge_submodels",
    "submodel",
]
