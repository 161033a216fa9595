"""The jobs, and the libraries that have a script for each or a reason for having none."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

Library = Literal["ours", "flowjax", "zuko", "pythae"]

FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
      title: The job in words.
      libraries: Those with a script `NAME_LIBRARY.py`.
      without: Reasons by the library that has no way at all.
    """

    title: str
    libraries: tuple[Library, ...] = ("ours", "flowjax", "zuko")
    without: dict[Library, str] = dataclasses.field(default_factory=dict)

    def path(self, name: str, library: Library) -> pathlib.Path:
        """The script of a library."""
        return FOLDER / f"{name}_{library}.py"


JOBS = {
    "fit": Job("An array to a trained spline flow, its densities and samples, through a file"),
    "conditional": Job("Simulations to posterior samples and densities given an observation"),
    "energy": Job("An unnormalised energy to samples with densities"),
    "vae": Job(
        "Images to a trained VAE, reconstructions and samples",
        ("ours", "pythae", "zuko"),
        {"flowjax": "no likelihoods of images, no latent-variable models"},
    ),
    "bijector": Job("A bijector of one's own, with learned parameters, at the end of a flow"),
}
"""The jobs by name, which begins the names of their scripts."""
