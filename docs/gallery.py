"""The gallery: figures of finished runs, smaller, and the page that shows them.

python docs/gallery.py RUN...     adds the figures of runs, or replaces those of the same preset
"""

from __future__ import annotations

import importlib
import json
import pathlib
import shutil
import sys
from typing import Any

DOCS = pathlib.Path(__file__).parent
RUNS = DOCS / "gallery"
LARGEST = 900
"""Pixels of the longer side of a figure."""


def add_run(run: pathlib.Path) -> pathlib.Path:
    """Copies the report and the figures of a run, still ones at most `LARGEST` pixels wide or high.

    Those of steps in between, such as `samples_step_0000128.png`, are left out.

    Returns:
      The folder of the copies, `docs/gallery/EXPERIMENT-PRESET`.

    Raises:
      ValueError: If the run isn't finished.
    """
    from PIL import Image

    report = run / "report.json"
    if not report.is_file():
        raise ValueError(f"a run must be finished, which {run} isn't: it has no report.json")
    values = json.loads(report.read_text())
    folder = RUNS / f"{values['experiment']}-{values['preset']}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    shutil.copy(report, folder)
    for figure in sorted((run / "figures").glob("*.*")):
        if "_step_" in figure.stem:
            continue
        if figure.suffix == ".gif":
            shutil.copy(figure, folder)
        elif figure.suffix == ".png":
            image = Image.open(figure).convert("RGB")
            image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
            image.quantize(256).save(folder / figure.name, optimize=True)
    return folder


def page() -> str:
    """The source of the page: for each run its task, command, cost, figures and report."""
    lines = [
        "# Gallery",
        "",
        "Every figure that the experiments make. Each command trains on data that comes with the",
        "installation, and writes the same figures, `report.json` and a model to its run's folder.",
        "",
    ]
    for report in sorted(RUNS.glob("*/report.json")):
        lines += _section(report.parent, json.loads(report.read_text()))
    return "\n".join(lines) + "\n"


def _section(folder: pathlib.Path, report: dict[str, Any]) -> list[str]:
    experiment, preset = report["experiment"], report["preset"]
    module = importlib.import_module(f"experiments.{experiment}")
    chosen = module.PRESETS[preset]
    first = next(iter(module.PRESETS)) == preset
    command = f"python -m experiments.{experiment}" + ("" if first else f" --preset {preset}")
    lines = [
        f"## {experiment}" + ("" if first else f", {preset}"),
        "",
        module.__doc__.split("\n\n")[0].replace("\n", " "),
        "",
        f"```shell\n{command}\n```",
        "",
        f"Cost: {chosen.cost}. {chosen.yields}",
        f"{{download}}`Report <gallery/{folder.name}/report.json>`.",
        "",
        "::::{grid} 1 2 3 3",
        ":gutter: 2",
        "",
    ]
    for figure in sorted(folder.iterdir()):
        if figure.suffix in (".png", ".gif"):
            name = figure.stem.replace("_", " ")
            lines += [
                ":::{grid-item-card}",
                f":link: {folder.name}/{figure.name}",
                f":img-top: gallery/{folder.name}/{figure.name}",
                f":img-alt: {name} of {experiment}",
                "",
                name,
                ":::",
            ]
    return [*lines, "::::", ""]


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(add_run(pathlib.Path(argument)))
