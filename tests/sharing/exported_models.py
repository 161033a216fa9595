"""Every public model, over every public flow and with every dequantizer, at a tiny size.

A new model, flow or dequantizer gets an entry here, and with it the tests of exported functions.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Iterable, Sequence

import flax.linen as nn
import jax.numpy as jnp

from vaeflow import bases, bijectors, flows, models

SHAPE = (4, 4, 1)

VECTOR_FLOWS = {
    flows.BlockAutoregressiveFlow,
    flows.ContinuousFlow,
    flows.GaussianizationFlow,
    flows.InverseAutoregressiveFlow,
    flows.MaskedAutoregressiveFlow,
    flows.NICE,
    flows.NeuralSplineFlow,
    flows.PlanarFlow,
    flows.RadialFlow,
    flows.ResidualFlow,
    flows.SylvesterFlow,
}
"""Flows over vectors alone, which have no use for dequantizers of images."""


def modules(package) -> set[type]:
    values = {getattr(package, name) for name in package.__all__}
    return {value for value in values if inspect.isclass(value) and issubclass(value, nn.Module)}


def whole_flows() -> set[type]:
    """Public flows that a model takes: those that say what noise they want; parts of them don't."""
    return {
        value
        for value in modules(flows)
        if hasattr(value, "noise_shape")
        or "noise_shape" in {field.name for field in dataclasses.fields(value)}
    }


def dequantizers() -> set[type]:
    """Modules that make reals of images, for densities; binary images and levels are no reals."""
    observations = {
        value
        for value in modules(models)
        if hasattr(value, "quantize") and not issubclass(value, models.CodeAutoEncoder)
    }
    return observations - {models.Binarizer, models.Discretizer}


def density_models() -> set[type]:
    """Public models of a flow."""
    fields = {
        value: {field.name for field in dataclasses.fields(value)} for value in modules(models)
    }
    return {value for value, names in fields.items() if {"flow", "dequantizer"} <= names}


def required() -> set[tuple[type, type, type]]:
    """Every model over every flow with none and, for flows over images, every dequantizer."""
    return set(itertools.product(density_models(), whole_flows(), {type(None)})) | set(
        itertools.product(density_models(), whole_flows() - VECTOR_FLOWS, dequantizers())
    )


def missing(entries: Iterable[nn.Module]) -> set[tuple[type, type, type]]:
    return required() - {
        (type(model), type(model.flow), type(model.dequantizer)) for model in entries
    }


def _glow(**options) -> flows.Glow:
    return flows.Glow(
        **({"event_shape": SHAPE, "num_levels": 1, "num_steps": 2, "hidden_features": 4} | options)
    )


def _real_nvp(*shape: int, **options) -> flows.RealNVP:
    options = {"num_steps": 2, "num_levels": 1, "hidden_features": 4, "num_blocks": 1} | options
    return flows.RealNVP(shape or SHAPE, **options)


def _neural_spline(channels: int) -> flows.NeuralSplineFlow:
    return flows.NeuralSplineFlow((channels,), num_steps=2, num_bins=3, hidden_sizes=(4,))


def _autoregressive(kind: type[nn.Module]) -> nn.Module:
    return kind((3,), num_steps=2, hidden_sizes=(4,))


_FLOWS = {
    "glow": _glow(),
    "real-nvp": _real_nvp(),
    "bounded": flows.BoundedFlow(_glow(), -0.6, 0.6),
    "standardized": flows.StandardizedFlow(_glow()),
    "transformed": flows.TransformedFlow(
        _glow(),
        functools.partial(bijectors.ElementwiseAffine, event_ndims=3),
        {"shift": 0.1, "log_scale": -0.2},
    ),
}
_DEQUANTIZERS = {
    "uniform": models.UniformDequantizer(bits=5),
    "variational": models.VariationalDequantizer(_glow(context_ndims=3)),
    "reals": None,
}
_OPTIONS = {
    "levels": _glow(num_levels=2),
    "unrolled": _glow(scan=False),
    "remat": _glow(backward="remat"),
    "reversible": _glow(backward="reversible", num_steps=5),
    "plu": _glow(plu=True),
    "bfloat16": _glow(dtype=jnp.bfloat16),
    "real-nvp-reversible": _real_nvp(backward="reversible"),
}

MODELS: dict[str, nn.Module] = {
    **{
        f"{flow}-{dequantizer}": models.FlowModel(_FLOWS[flow], _DEQUANTIZERS[dequantizer])
        for flow, dequantizer in itertools.product(_FLOWS, _DEQUANTIZERS)
    },
    **{
        f"option-{name}": models.FlowModel(flow, _DEQUANTIZERS["uniform"])
        for name, flow in _OPTIONS.items()
    },
    "vectors": models.FlowModel(_real_nvp(3)),
    "masked-autoregressive": models.FlowModel(_autoregressive(flows.MaskedAutoregressiveFlow)),
    "inverse-autoregressive": models.FlowModel(_autoregressive(flows.InverseAutoregressiveFlow)),
    "mixture-base": models.FlowModel(
        _real_nvp(3), base=bases.GaussianMixtureBase((3,), num_components=2)
    ),
    "neural-spline": models.FlowModel(_neural_spline(3)),
    "nice": models.FlowModel(flows.NICE((3,), num_steps=2, hidden_sizes=(4,))),
    "block-autoregressive": models.FlowModel(
        flows.BlockAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(3,))
    ),
    "continuous": models.FlowModel(flows.ContinuousFlow((2,), hidden_sizes=(4,))),
    "gaussianization": models.FlowModel(
        flows.GaussianizationFlow((2,), num_steps=2, num_components=3)
    ),
    "planar": models.FlowModel(flows.PlanarFlow((3,), num_steps=2)),
    "radial": models.FlowModel(flows.RadialFlow((3,), num_steps=2)),
    "residual": models.FlowModel(flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(4, 4))),
    "sylvester": models.FlowModel(flows.SylvesterFlow((3,), num_steps=2)),
}

CONTEXTS: Sequence[tuple[str, nn.Module, tuple[int, ...], type]] = (
    ("labels", models.FlowModel(_glow(num_classes=3), _DEQUANTIZERS["uniform"]), (), jnp.int32),
    ("vectors", models.FlowModel(_glow(), _DEQUANTIZERS["uniform"]), (2,), jnp.float32),
    ("maps", models.FlowModel(_glow(context_ndims=3)), (4, 4, 2), jnp.float32),
    ("reversible", models.FlowModel(_real_nvp(3, backward="reversible")), (2,), jnp.float32),
)
"""Conditional models: a name, the model, and the shape and the dtype of a context."""
