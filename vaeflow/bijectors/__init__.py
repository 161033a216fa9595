"""Bijections between noise and data, with their log-determinants.

Every bijector is a pytree of arrays: pure, and at home in jit, vmap and scan. It never creates
parameters; that is the task of `vaeflow.flows`.
"""

from vaeflow.bijectors.actnorm import ActNorm, actnorm_parameters
from vaeflow.bijectors.affine import ElementwiseAffine
from vaeflow.bijectors.autoregressive import AutoregressiveNetwork, MaskedAutoregressive
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.bernstein import BernsteinPolynomial
from vaeflow.bijectors.block_autoregressive import BlockAutoregressive
from vaeflow.bijectors.compose import Chain, FactorOut, Inverse
from vaeflow.bijectors.conditioner import Conditioner
from vaeflow.bijectors.continuous import Continuous, VelocityNetwork
from vaeflow.bijectors.contraction import solve_residual
from vaeflow.bijectors.convolution import (
    Invertible1x1Convolution,
    Invertible1x1ConvolutionPLU,
    plu_factors,
)
from vaeflow.bijectors.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    SigmoidLogScale,
    bounded_log_scale,
)
from vaeflow.bijectors.gaussianization import MixtureGaussianization, mixture_of_quantiles
from vaeflow.bijectors.householder import Householder
from vaeflow.bijectors.linear import LULinear, QRLinear
from vaeflow.bijectors.monotone_network import MonotoneNetwork
from vaeflow.bijectors.numerical import NumericalInverse, solve_monotone
from vaeflow.bijectors.orthogonal import householder_product, orthonormal_columns
from vaeflow.bijectors.planar import Planar
from vaeflow.bijectors.positive import Exp, Softplus
from vaeflow.bijectors.radial import Radial
from vaeflow.bijectors.residual import ContractiveNetwork, Residual
from vaeflow.bijectors.residual_log_det import estimated_log_det, exact_log_det
from vaeflow.bijectors.scan import Scan
from vaeflow.bijectors.shapes import Permute, Reshape, Reverse, Squeeze
from vaeflow.bijectors.sigmoid import Logit, Sigmoid
from vaeflow.bijectors.spline import RationalQuadraticSpline
from vaeflow.bijectors.sylvester import Sylvester
from vaeflow.bijectors.trajectory import Stepwise, trajectory
from vaeflow.bijectors.transformed_coupling import TransformedCoupling
from vaeflow.bijectors.transformers import (
    AffineTransformer,
    BernsteinTransformer,
    MonotoneTransformer,
    SplineTransformer,
    Transformer,
)

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AffineTransformer",
    "AutoregressiveNetwork",
    "BernsteinPolynomial",
    "BernsteinTransformer",
    "Bijector",
    "BlockAutoregressive",
    "Chain",
    "Conditioner",
    "Continuous",
    "ContractiveNetwork",
    "ElementwiseAffine",
    "Exp",
    "FactorOut",
    "Householder",
    "Inverse",
    "Invertible1x1Convolution",
    "Invertible1x1ConvolutionPLU",
    "LULinear",
    "Logit",
    "MaskedAutoregressive",
    "MixtureGaussianization",
    "MonotoneNetwork",
    "MonotoneTransformer",
    "NumericalInverse",
    "Permute",
    "Planar",
    "QRLinear",
    "Radial",
    "RationalQuadraticSpline",
    "Reshape",
    "Residual",
    "Reverse",
    "Scan",
    "Sigmoid",
    "SigmoidLogScale",
    "Softplus",
    "SplineTransformer",
    "Squeeze",
    "Stepwise",
    "Sylvester",
    "TransformedCoupling",
    "Transformer",
    "VelocityNetwork",
    "actnorm_parameters",
    "bounded_log_scale",
    "estimated_log_det",
    "exact_log_det",
    "householder_product",
    "mixture_of_quantiles",
    "orthonormal_columns",
    "plu_factors",
    "solve_monotone",
    "solve_residual",
    "trajectory",
]
