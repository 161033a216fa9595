"""Trained models as files: variables with their configuration, and compiled functions."""

from vaeflow.sharing.export import (
    PLATFORMS,
    Argument,
    Function,
    export_function,
    load_exported,
    save_exported,
)
from vaeflow.sharing.model_functions import (
    code_functions,
    flow_functions,
    latent_functions,
    translation_functions,
)
from vaeflow.sharing.save import from_json, load, save

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
