"""Models of several parts, trained against each other or one after another.

Such a model is a Flax module that holds each part in an attribute of the part's name, or in a
sequence of the name before its number, so that its `init` gives ``{"params": {name: ...}}``, as
`vaeflow.training` wants the parameters of players. Its losses take the parts with `submodel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn


def submodel(
    model: nn.Module, variables: Mapping[str, Any], name: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Takes one player out of a model of several: a module and its variables, to apply it alone.

    What it returns is all that there is to say of the player, so it is also what to save of it and
    to share.

    Args:
      model: A module that holds the player, such as `FactorVAE` or `CodeModel`.
      variables: The model's variables.
      name: Name of the player, such as "model" or "discriminator"; "priors_0" is the first of the
        sequence `priors`.

    Returns:
      The player's module, and its part of each collection that it has a part of.

    Raises:
      ValueError: If "params" holds no such player.
    """
    if name not in variables["params"]:
        raise ValueError(f"name must be among {sorted(variables['params'])}, got {name!r}")
    own = {collection: tree[name] for collection, tree in variables.items() if name in tree}
    if hasattr(model, name):
        return getattr(model, name), own
    sequence, _, number = name.rpartition("_")
    return getattr(model, sequence)[int(number)], own


def merge_submodels(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Makes the variables of a model of those of its parts, which `submodel` takes apart again.

    Args:
      parts: Variables by the names of the parts.
    """
    collections = dict.fromkeys(name for part in parts.values() for name in part)
    return {
        collection: {name: part[collection] for name, part in parts.items() if collection in part}
        for collection in collections
    }
