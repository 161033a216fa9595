"""What the latents of a model are called."""

from __future__ import annotations

from typing import NamedTuple

from vaeflow import encoders, models


class Unit(NamedTuple):
    """A latent, or a group of entries that say one category.

    Attributes:
      name: ``z3`` for the fourth of the latents, ``style.3`` for that of a group, ``digit`` for a
        category.
      start: Its first entry in the vector of all latents.
      categories: Number of categories, and so of entries; 0 for one real entry.
    """

    name: str
    start: int
    categories: int = 0


def units_of(model) -> list[Unit]:
    """Lists what can be set of a model's latents, in their order.

    In a hierarchy those are the latents beside the image, by which alone others reach it.
    """
    posterior = getattr(getattr(model, "encoder", None), "posterior", None)
    found: list[Unit] = []
    start = 0
    if isinstance(posterior, encoders.GroupedPosterior):
        for name, group in posterior.groups.items():
            if isinstance(group, encoders.ConcretePosterior):
                found.append(Unit(name, start, group.latents))
            else:
                found += [Unit(f"{name}.{i}", start + i) for i in range(group.latents)]
            start += group.latents
        return found
    count = (
        model.latent_sizes[0] if isinstance(model, models.HierarchicalVAE) else model.num_latents
    )
    return [Unit(f"z{i}", i) for i in range(count)]
