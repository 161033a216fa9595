"""Trained models as files: variables with their configuration, and compiled functions."""

from vaeflow.sharing.code_functions import code_functions
from vaeflow.sharing.configuration import from_json
from vaeflow.sharing.flow_functions import flow_functions
from vaeflow.sharing.functions import (
    PLATFORMS,
    Argument,
    Function,
    export_function,
    load_exported,
    save_exported,
)
from vaeflow.sharing.latent_functions import latent_functions
from vaeflow.sharing.translation_functions import translation_functions
from vaeflow.sharing.variables import load, save

__all__ = [
    "PLATFORMS",
    "Argument",
    "Function",
    "code_functions",
    "export_function",
    "flow_functions",
    "from_json",
    "latent_functions",
    "load",
    "load_exported",
    "save",
    "save_exported",
    "translation_functions",
]
