"""Bijectors: invertible maps from noise to data, with their log-determinants.

Every bijector is a pure pytree of arrays that works in jit, vmap and scan. It never creates
parameters: the modules of `vaeflow.flows` do.
"""

from vaeflow.bijectors.autoregressive import BlockAutoregressive, MaskedAutoregressive
from vaeflow.bijectors.base import Bijector, Conditioner
from vaeflow.bijectors.compose import Chain, FactorOut, Inverse, Scan, trajectory
from vaeflow.bijectors.continuous import Continuous
from vaeflow.bijectors.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    AffineTransformer,
    BernsteinTransformer,
    BoundedLogScale,
    MonotoneTransformer,
    SigmoidLogScale,
    SplineTransformer,
    TransformedCoupling,
)
from vaeflow.bijectors.elementwise import ActNorm, ElementwiseAffine, Exp, Logit, Sigmoid, Softplus
from vaeflow.bijectors.gaussianization import MixtureGaussianization
from vaeflow.bijectors.linear import (
    Invertible1x1Convolution,
    Invertible1x1ConvolutionPLU,
    LULinear,
    QRLinear,
)
from vaeflow.bijectors.monotone import BernsteinPolynomial, MonotoneNetwork
from vaeflow.bijectors.numerical import NumericalInverse
from vaeflow.bijectors.orthogonal import Householder
from vaeflow.bijectors.planar_and_radial import Planar, Radial
from vaeflow.bijectors.reshape import Permute, Reshape, Reverse, Squeeze
from vaeflow.bijectors.residual import Residual
from vaeflow.bijectors.spline import RationalQuadraticSpline
from vaeflow.bijectors.sylvester import Sylvester
from vaeflow.typing import Transformer

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AffineTransformer",
    "BernsteinPolynomial",
    "BernsteinTransformer",
    "Bijector",
    "BlockAutoregressive",
    "BoundedLogScale",
    "Chain",
    "Conditioner",
    "Continuous",
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
    "Sylvester",
    "TransformedCoupling",
    "Transformer",
    "trajectory",
]
