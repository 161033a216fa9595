"""Kills a run at random moments, over and over, and compares its end with that of a run left alone.

    python tests/training/random_kills.py --kills 100

trains the small models of `divided.py`, each in a run of its own, and kills the process by SIGKILL
at moments drawn uniformly over as long as it took alone, including its start and the writing of
checkpoints; then gives the same command again, until the kills are used up. Parameters, optimiser,
moving averages and metrics have to be the same, bit for bit, as without kills.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

SCRIPT = pathlib.Path(__file__).with_name("divided.py")


def command(workdir: pathlib.Path, preset: str, steps: int) -> subprocess.Popen:
    """Starts the run, or goes on with it."""
    root = SCRIPT.parent.parent.parent
    arguments = ["--preset", preset, "--workdir", str(workdir), "--train.steps", str(steps)]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments, "--train.checkpoint-every", "2"],
        env={"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(workdir: pathlib.Path, preset: str, steps: int) -> None:
    """Runs to the end.

    Raises:
      RuntimeError: If the run can't go on by itself.
    """
    process = command(workdir, preset, steps)
    shown, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{workdir} couldn't go on:\n{shown}")


def kill_after(workdir: pathlib.Path, preset: str, steps: int, seconds: float) -> bool:
    """Whether the run was still under way when it was killed.

    Raises:
      RuntimeError: If it had ended with an error before.
    """
    process = command(workdir, preset, steps)
    try:
        shown, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise RuntimeError(f"{workdir} couldn't go on:\n{shown}")
    return False


def differences(first: pathlib.Path, second: pathlib.Path) -> list[str]:
    """Names of the arrays, and of the files of metrics, in which two finished runs differ."""
    with np.load(first / "state.npz") as a, np.load(second / "state.npz") as b:
        names = [name for name in {*a, *b} if a[name].tobytes() != b[name].tobytes()]
    lines = [
        [{**json.loads(line), "wall_seconds": 0} for line in text.splitlines()]
        for text in ((path / "metrics.jsonl").read_text() for path in (first, second))
    ]
    return names + ["metrics.jsonl"] * (lines[0] != lines[1])


def main() -> None:
    """Kills, compares, and says how many of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        alone, seconds = {}, {}
        for preset in ("coupled", "glow"):
            alone[preset] = root / f"{preset}-alone"
            finish(root / f"{preset}-first", preset, options.steps)  # fills caches
            start = time.monotonic()
            finish(alone[preset], preset, options.steps)
            seconds[preset] = time.monotonic() - start
        killed, early, runs, failed = 0, 0, 0, []
        while killed < options.kills:
            preset = ("coupled", "glow")[runs % 2]
            workdir = root / f"{preset}-{runs}"
            for _ in range(min(options.kills_per_run, options.kills - killed)):
                moment = chance.uniform(0, seconds[preset])
                if not kill_after(workdir, preset, options.steps, moment):
                    early += 1  # it had ended; the next command only says so
                    break
                killed += 1
            finish(workdir, preset, options.steps)
            different = differences(workdir, alone[preset])
            failed += [f"{workdir.name}: {name}" for name in different]
            runs += 1
            print(f"{killed} kills, {runs} runs, {len(failed)} differences", flush=True)
    print(f"{killed} kills over {runs} runs; {early} runs ended before their next kill")
    if failed:
        sys.exit("\n".join(["these differ:", *failed]))
    print("all ended as those left alone, bit for bit")


if __name__ == "__main__":
    main()
