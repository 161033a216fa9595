"""Every public class of a kind has the attributes and methods of its protocol in `vaeflow.typing`.

The kinds are read from the packages, so that a new class is checked without being listed here.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing

import flax.linen as nn
import pytest

from vaeflow import (
    bases,
    bijectors,
    decoders,
    encoders,
    flows,
    losses,
    models,
    quantizers,
    training,
)
from vaeflow import nn as networks
from vaeflow import typing as protocols

NETWORKS = {
    protocols.AutoregressiveNetwork: networks.MaskedMLP,
    protocols.ContractiveNetwork: networks.LipschitzMLP,
    protocols.VelocityNetwork: networks.TimeDependentMLP,
}


def classes(package, excluded=(), suffix="") -> list[type]:
    """The public classes of a package whose names end in a suffix."""
    public = (getattr(package, name) for name in package.__all__ if name.endswith(suffix))
    return [each for each in public if inspect.isclass(each) and each not in excluded]


PAIRS = [
    *((protocols.Prior, each) for each in [*classes(bases, [bases.Base]), models.FlowModel]),
    *((protocols.Posterior, each) for each in classes(encoders, suffix="Posterior")),
    *((protocols.Likelihood, each) for each in classes(decoders, suffix="Likelihood")),
    *((protocols.Preprocessor, each) for each in classes(models, suffix="izer")),
    *(
        (protocols.Flow, each)
        for each in classes(flows, [flows.StackedFlow])
        if issubclass(each, nn.Module)
    ),
    *(
        (protocols.Transformer, each)
        for each in classes(bijectors, [protocols.Transformer], "Transformer")
    ),
    *(
        (protocols.Quantizer, each)
        for each in classes(quantizers, [quantizers.Quantizer], "Quantizer")
    ),
    *((protocols.Logger, each) for each in classes(training, suffix="Logger")),
    *NETWORKS.items(),
]
NOT_LOSSES = {"Aux", "code_bound", "maximum_mean_discrepancy"}
LOSSES = [
    name for name in losses.__all__ if name not in NOT_LOSSES and not name.endswith("_schedule")
]


def missing(protocol: type, implementation: type) -> list[str]:
    """Attributes, methods and arguments of methods that an implementation lacks."""
    annotations = typing.get_type_hints(protocol, vars(protocols)).keys()
    methods = {
        name
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and (not name.startswith("_") or name == "__call__")
    } - {"__init__", "__subclasshook__"}
    properties = {name for name, value in vars(protocol).items() if isinstance(value, property)}
    fields = (
        {field.name for field in dataclasses.fields(implementation)}
        if dataclasses.is_dataclass(implementation)
        else set()
    )
    lacking = [
        name
        for name in sorted({*annotations, *properties, *methods})
        if name not in fields and not hasattr(implementation, name)
    ]
    for name in sorted(methods - set(lacking)):
        wanted = inspect.signature(getattr(protocol, name)).parameters.values()
        accepted = inspect.signature(getattr(implementation, name)).parameters
        lacking += [
            f"{name}({parameter.name})"
            for parameter in wanted
            if parameter.name not in accepted
            and not (name == "apply" and issubclass(implementation, nn.Module))
        ]
    return lacking


@pytest.mark.parametrize(
    ("protocol", "implementation"), PAIRS, ids=lambda value: getattr(value, "__name__", None)
)
def test_class_has_the_members_of_its_protocol(protocol, implementation):
    assert missing(protocol, implementation) == []


def test_every_protocol_of_classes_is_checked():
    checked = {protocol for protocol, _ in PAIRS} | {protocols.Loss, protocols.FlowStep}
    public = {
        value for value in vars(protocols).values() if getattr(value, "_is_protocol", False)
    } - {typing.Protocol}
    assert public == checked


def test_missing_members_are_reported():
    @dataclasses.dataclass
    class NoArguments:
        num_parameters = 2

        def __call__(self, raw):
            return raw

    class NoStandard(nn.Module):
        num_latents: int

        def __call__(self, features):
            return features

    assert missing(protocols.Transformer, NoArguments) == ["__call__(event_ndims)"]
    assert missing(protocols.Posterior, NoStandard) == ["has_density", "location", "standard"]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_have_one_signature(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    positional = [
        parameter.name
        for parameter in parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == ["model", "variables", "batch", "rng"]
    assert list(parameters)[4:6] == ["axis", "train"]
    assert parameters["train"].default is True
