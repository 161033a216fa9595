"""Trained models as files.

`save` and `load` keep models, or configurations, with their variables; `export_functions`,
`save_exported` and `load_exported` keep compiled functions, which need neither the model's code nor
vaeflow.
"""

from vaeflow.sharing.definition import from_json
from vaeflow.sharing.export import (
    PLATFORMS,
    ArgumentSpec,
    FunctionSpec,
    load_exported,
    save_exported,
)
from vaeflow.sharing.model_functions import export_functions
from vaeflow.sharing.save import load, save

__all__ = [
    "PLATFORMS",
    "ArgumentSpec",
    "FunctionSpec",
    "export_functions",
    "from_json",
    "load",
    "load_exported",
    "save",
    "save_exported",
]
