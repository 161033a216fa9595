"""Model cards: what a shared model is of, how it was trained, and how to load it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def model_card(name: str, summary: Mapping[str, Any], description: str, license: str) -> str:
    """Writes the card of a fitted model in Markdown, with the metadata that hubs read.

    Args:
      name: The class of the model.
      summary: See `vaeflow.fitting.Fitted`.
      description: What the model is of, in Markdown; may be empty.
      license: Identifier of its licence; may be empty.
    """
    metadata = ["library_name: vaeflow", "tags:", "- jax", "- density-estimation"]
    if license:
        metadata.insert(0, f"license: {license}")
    lines = ["---", *metadata, "---", "", f"# {name} of {_shape(summary['event_shape'])}", ""]
    if description:
        lines += [description, ""]
    lines += [
        "## How to load it",
        "",
        "```python",
        "import vaeflow as vf",
        "",
        'fitted = vf.fitting.from_pretrained("PATH/OF/THIS/FOLDER")',
        "samples = fitted.sample(16)" + (", context=..." if summary["context"] else ""),
        "```",
        "",
        "## Data",
        "",
        f"{summary['examples']} examples of {_shape(summary['event_shape'])} to train on, "
        f"{summary['validation_examples']} to choose the best step.",
    ]
    if summary["context"]:
        lines.append(f"Given {summary['context']}.")
    if summary["standardized"]:
        lines.append(
            f"Within the model, {summary['standardized']}; densities are in the units of the data."
        )
    lines += [
        "",
        "## Training",
        "",
        f"{summary['loss']}, {summary['last_step']} steps of {summary['options']['batch_size']} "
        f"examples, the best at step {summary['step']}; seed {summary['options']['seed']}.",
        "",
        "| metric | value |",
        "| --- | --- |",
    ]
    lines += [
        f"| {metric} | {value:.5g} |"
        for metric, value in summary["metrics"].items()
        if value is not None and math.isfinite(value)
    ]
    versions = ", ".join(f"{package} {version}" for package, version in summary["versions"].items())
    lines += ["", f"Made with {versions}.", ""]
    return "\n".join(lines)


def _shape(shape: list[int]) -> str:
    return f"{shape[0]} dimensions" if len(shape) == 1 else "x".join(map(str, shape)) + " pixels"
