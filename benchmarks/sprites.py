"""Disentangling objectives on sprites: reconstruction and scores of each, over several seeds.

Options of `experiments.beta_vae_sprites`, such as `--train.steps 1000`, are given to every run.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from experiments import _cli, beta_vae_sprites

COLUMNS = {
    "reconstruction": 2,
    "kl": 2,
    "active_units": 1,
    "mutual_information_gap": 3,
    "factor_vae_score": 3,
    "beta_vae_score": 3,
    "disentanglement": 3,
    "completeness": 3,
    "informativeness": 3,
    "separated_attribute_predictability": 3,
    "modularity": 3,
}
"""Metrics of the table, and the digits that are shown of each."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Which runs, and where they are kept."""

    presets: tuple[str, ...] = tuple(beta_vae_sprites.PRESETS)
    """Presets of `experiments.beta_vae_sprites`."""
    seeds: int = 3
    """Runs of each preset, with seeds from 0."""
    workdir: str = "runs/sprites"
    """Directory of the runs. Finished ones aren't repeated; scores.md and scores.json tell of all
    that it holds, also of presets that weren't asked for this time."""


def main(config: Config, options: Sequence[str] = ()) -> None:
    """Runs all, seed by seed, and writes and prints the table of what is finished.

    Args:
      config: Which runs.
      options: Further options of the experiment, the same for all.
    """
    _cli.quieten()
    for seed in range(config.seeds):
        for preset in config.presets:
            workdir = f"{config.workdir}/{preset}-{seed}"
            arguments = ["--preset", preset, "--workdir", workdir, "--train.seed", str(seed)]
            code = _cli.execute(
                "beta_vae_sprites",
                beta_vae_sprites.PRESETS,
                beta_vae_sprites.run,
                [*arguments, *options],
            )
            if code:
                raise SystemExit(code)
            rows = summarize(config)
            path = pathlib.Path(config.workdir)
            (path / "scores.json").write_text(json.dumps(rows, indent=2) + "\n")
            (path / "scores.md").write_text(table(rows))
    print(table(rows))


def summarize(config: Config) -> list[dict[str, Any]]:
    """The mean and the standard deviation of each preset's metrics, over its finished runs."""
    rows = []
    for preset in beta_vae_sprites.PRESETS:
        files = [
            pathlib.Path(config.workdir, f"{preset}-{seed}", "report.json")
            for seed in range(config.seeds)
        ]
        results = [json.loads(file.read_text())["metrics"] for file in files if file.exists()]
        if results:
            values = {name: [metrics[name] for metrics in results] for name in COLUMNS}
            rows.append(
                {
                    "objective": preset,
                    "runs": len(results),
                    "mean": {name: statistics.mean(each) for name, each in values.items()},
                    "deviation": {
                        name: statistics.stdev(each) if len(each) > 1 else None
                        for name, each in values.items()
                    },
                }
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as markdown."""
    names = ["objective", "runs", *(name.replace("_", " ") for name in COLUMNS)]
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for row in rows:
        cells = [row["objective"], str(row["runs"])]
        for name, digits in COLUMNS.items():
            mean, deviation = row["mean"][name], row["deviation"][name]
            spread = "" if deviation is None else f" ± {deviation:.{digits}f}"
            cells.append(f"{mean:.{digits}f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(*tyro.cli(Config, description=__doc__, return_unknown_args=True))
