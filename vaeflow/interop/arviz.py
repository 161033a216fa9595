"""ArviZ: chains as its data structure, for effective sample sizes, R-hat, plots.

It needs the extra ``vaeflow[interop]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array

from vaeflow._util.files import optional_import

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["from_chains"]


def from_chains(
    samples: Array | Mapping[str, Array], statistics: Mapping[str, Array] | None = None
) -> InferenceData:
    """Builds ArviZ's data structure from chains, with the groups posterior and sample_stats.

    ::

        chains = vf.interop.blackjax.nuts(pullback, variables, key)
        data = vf.interop.arviz.from_chains(chains.samples, chains.statistics)
        arviz.ess(data), arviz.rhat(data)

    Args:
      samples: ``[chain, draw, *event]``; one array, which is called "x", or several by name.
      statistics: Of each draw, ``[chain, draw, ...]`` by name, such as "diverging"; None for none.

    Raises:
      ValueError: If ArviZ isn't installed, there are no samples, or an array has no axes of chains
        and draws or not those of the others.
    """
    arviz = optional_import("arviz", "vaeflow.interop.arviz.from_chains", extra="interop")
    groups = {
        "samples": dict(samples) if isinstance(samples, Mapping) else {"x": samples},
        "statistics": dict(statistics or {}),
    }
    if not groups["samples"]:
        raise ValueError("samples must hold at least one array, got none")
    first: tuple[int, ...] | None = None
    for group, arrays in groups.items():
        for name, values in arrays.items():
            shape = np.shape(values)
            first = first or shape[:2]
            if len(shape) < 2 or shape[:2] != first or 0 in first:
                raise ValueError(
                    f"{group} must be arrays [chain, draw, ...] of equal numbers of chains and "
                    f"draws, {first} in the first, got {name} of shape {shape}"
                )
    posterior, sample_stats = (
        {name: np.asarray(values) for name, values in arrays.items()} for arrays in groups.values()
    )
    given: dict[str, Any] = {"sample_stats": sample_stats} if sample_stats else {}
    return arviz.from_dict(posterior=posterior, **given)
