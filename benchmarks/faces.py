"""Held-out bits/dim of Glow and of plain densities on the embedded faces, over five folds."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics

import tyro

from experiments import _cli, glow_celeba

METRICS = (
    "bits_per_dim",
    "bits_per_dim_diagonal_gaussian",
    "bits_per_dim_shrunk_gaussian",
    "bits_per_dim_linear_predictor",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Which folds, and where their runs are kept."""

    folds: int = 5
    """Number of folds, at most 10, each with ten test images of its own."""
    workdir: str = "runs/faces-folds"
    """Directory of the runs; finished ones aren't repeated."""


def main(config: Config) -> None:
    """Runs the folds and prints a table."""
    _cli.quieten()
    results: dict[str, list[float]] = {name: [] for name in METRICS}
    for fold in range(config.folds):
        workdir = f"{config.workdir}/{fold}"
        arguments = ["--preset", "faces", "--data.fold", str(fold), "--workdir", workdir]
        code = _cli.execute("glow_celeba", glow_celeba.PRESETS, glow_celeba.run, arguments)
        if code:
            raise SystemExit(code)
        report = json.loads(pathlib.Path(workdir, "report.json").read_text())
        for name in METRICS:
            results[name].append(report["metrics"][name])
    folds = " | ".join(f"fold {fold}" for fold in range(config.folds))
    print(f"| bits/dim | {folds} | mean | standard deviation |")
    print("| --- " * (config.folds + 3) + "|")
    for name, values in results.items():
        model = name.removeprefix("bits_per_dim").strip("_").replace("_", " ") or "Glow"
        cells = " | ".join(f"{value:.3f}" for value in values)
        mean, spread = statistics.mean(values), statistics.stdev(values)
        print(f"| {model} | {cells} | {mean:.3f} | {spread:.3f} |")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
