"""Bijections between noise and data, with their log-determinants.

Every bijector is a pytree of arrays: pure, and at home in jit, vmap and scan. It never creates
parameters; that is the task of `vaeflow.flows`.
"""

from vaeflow.bijectors.actnorm import ActNorm, actnorm_parameters
from vaeflow.bijectors.affine import ElementwiseAffine
from vaeflow.bijectors.autoregressive import AutoregressiveNetwork, MaskedAutoregressive
from vaeflow.bijectors.base import Bijector
from vaeflow.bijectors.compose import Chain, FactorOut, Inverse
from vaeflow.bijectors.conditioner import Conditioner
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
from vaeflow.bijectors.numerical import NumericalInverse, solve_monotone
from vaeflow.bijectors.planar import Planar
from vaeflow.bijectors.radial import Radial
from vaeflow.bijectors.scan import Scan
from vaeflow.bijectors.shapes import Permute, Reshape, Reverse, Squeeze
from vaeflow.bijectors.sigmoid import Sigmoid
from vaeflow.bijectors.spline import RationalQuadraticSpline
from vaeflow.bijectors.transformed_coupling import TransformedCoupling
from vaeflow.bijectors.transformers import AffineTransformer, SplineTransformer, Transformer

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AffineTransformer",
    "AutoregressiveNetwork",
    "Bijector",
    "Chain",
    "Conditioner",
    "ElementwiseAffine",
    "FactorOut",
    "Inverse",
    "Invertible1x1Convolution",
    "Invertible1x1ConvolutionPLU",
    "MaskedAutoregressive",
    "NumericalInverse",
    "Permute",
    "Planar",
    "Radial",
    "RationalQuadraticSpline",
    "Reshape",
    "Reverse",
    "Scan",
    "Sigmoid",
    "SigmoidLogScale",
    "SplineTransformer",
    "Squeeze",
    "TransformedCoupling",
    "Transformer",
    "actnorm_parameters",
    "bounded_log_scale",
    "plu_factors",
    "solve_monotone",
]
