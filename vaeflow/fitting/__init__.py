"""Fitting: from data in memory to a trained model, in one call.

`fit` trains a flow or another model on arrays, `fit_energy` a flow on an unnormalised density; a
`Fitted` model has densities, samples and files.
"""

from vaeflow.fitting.data import fit
from vaeflow.fitting.energy import FittedEnergy, fit_energy
from vaeflow.fitting.ensemble import Ensemble
from vaeflow.fitting.fitted import Fitted, from_pretrained, load_fitted

__all__ = [
    "Ensemble",
    "Fitted",
    "FittedEnergy",
    "fit",
    "fit_energy",
    "from_pretrained",
    "load_fitted",
]
