"""Kills runs at random moments, over and over, and compares their ends with that of one left alone.

    python -m tests.training.random_kills --kills 100

trains the runs of `staged.py`, of two stages and of two players, and kills the process by SIGKILL:
every other time at a moment drawn uniformly over as long as the run took alone, and every other
time while a checkpoint is written. Then it gives the same command again, until the kills of the run
are used up. Checkpoints, metrics, model and report have to be the same as without kills, bit for
bit, but for times.

Processes are forked from one that has imported everything, which alone takes most of a restart.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAST = 10
"""Step of the last checkpoint of each stage."""
IMPORTED = (
    *("grain", "matplotlib.backends.backend_agg", "orbax.checkpoint"),
    *("tensorboardX.proto.event_pb2", "tensorboardX.record_writer", "tensorboardX.summary"),
)
"""Packages that a run imports when it needs them."""


def serve() -> None:
    """Forks a process for a line of stdin, an experiment and a folder; answers with its number.

    To a second line it answers with its exit code; until then the number isn't used again. Nothing
    of JAX that a fork could break runs in this process.
    """
    from experiments import _cli
    from tests.training import staged

    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        name, workdir = json.loads(line)
        process = os.fork()
        if not process:
            log = os.open(f"{workdir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            _cli.main(name, staged.PRESETS, staged.RUNS[name], ["--workdir", workdir])
        print(process, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


@dataclasses.dataclass
class Server:
    """A process that forks runs."""

    process: subprocess.Popen

    @classmethod
    def start(cls) -> Server:
        """Starts it, which takes seconds."""
        command = [sys.executable, "-m", "tests.training.random_kills", "--serve"]
        return cls(
            subprocess.Popen(
                command,
                env={"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def begin(self, name: str, workdir: pathlib.Path) -> int:
        """Starts a run, or goes on with it; returns the number of its process."""
        print(json.dumps([name, str(workdir)]), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self, workdir: pathlib.Path) -> bool:
        """Waits for the end of the run that was begun; returns whether it was killed.

        Raises:
          RuntimeError: If it ended by itself, with an error.
        """
        print("end", file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{workdir} couldn't go on:\n{log_of(workdir).read_text()[-3000:]}")
        return code != 0


def log_of(workdir: pathlib.Path) -> pathlib.Path:
    """The file of what the processes of a run print."""
    return workdir.with_name(f"{workdir.name}.log")


def unfinished(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Checkpoints that are being written, or whose writing a kill ended."""
    return [*workdir.glob("checkpoints/*tmp*"), *workdir.glob("second/checkpoints/*tmp*")]


def kill_at(process: int, moment: float) -> None:
    """Kills a process after so many seconds."""
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)


def kill_in_checkpoint(process: int, workdir: pathlib.Path, chance: random.Random) -> None:
    """Kills a process while it writes one of the next checkpoints, if it writes any."""
    left = set(unfinished(workdir))  # by earlier kills
    seen, wanted = left, chance.randint(1, 4)
    while pathlib.Path(f"/proc/{process}/stat").read_text().split()[2] != "Z":
        now = set(unfinished(workdir))
        wanted -= len(now - seen)
        seen = seen | now
        if wanted <= 0:
            time.sleep(chance.uniform(0, 0.03))
            break
        time.sleep(0.0005)
    os.kill(process, signal.SIGKILL)


def files_of(workdir: pathlib.Path) -> dict[str, object]:
    """The content of a finished run that has to be the same in every run."""
    import orbax.checkpoint as ocp

    content: dict[str, object] = {}
    for stage, path in {"first": workdir, "second": workdir / "second"}.items():
        if not path.exists():
            continue
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        content[f"{stage}/metrics"] = [{**line, "wall_seconds": 0} for line in lines]
        with ocp.CheckpointManager(path / "checkpoints") as manager:
            arguments = ocp.args.Composite(
                tree=ocp.args.StandardRestore(), beside=ocp.args.JsonRestore()
            )
            restored = manager.restore(LAST, args=arguments)
        content[f"{stage}/checkpoint"] = _leaves(restored["tree"]), restored["beside"]
        content[f"{stage}/figures"] = sorted(
            (file.name, file.read_bytes()) for file in path.glob("figures/*.png")
        )
    content["model.safetensors"] = (workdir / "model.safetensors").read_bytes()
    report = json.loads((workdir / "report.json").read_text())
    content["report.json"] = {**report, "wall_seconds": 0}
    return content


def _leaves(tree) -> list[tuple[str, bytes]]:
    """The bytes of each leaf, by name."""
    import jax
    import numpy as np

    leaves, _ = jax.tree.flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), np.asarray(leaf).tobytes()) for path, leaf in leaves]


@dataclasses.dataclass
class Outcome:
    """The result of many kills.

    Attributes:
      kills: Number of kills of runs that were under way.
      aimed: How many of them were aimed at the writing of a checkpoint.
      hits: How many left a checkpoint half-written.
      runs: Number of runs that were killed and ended.
      differences: What differs from a run that was left alone, by run.
    """

    kills: int = 0
    aimed: int = 0
    hits: int = 0
    runs: int = 0
    differences: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.aimed} aimed at checkpoints, {self.hits} left one "
            f"half-written; {self.runs} runs, {len(self.differences)} differences"
        )


def kill_runs(root: pathlib.Path, kills: int, kills_per_run: int, seed: int) -> Outcome:
    """Kills runs in a folder, ends each, and compares it.

    Args:
      root: The folder.
      kills: Number of kills in all.
      kills_per_run: How many of them a run gets, at most.
      seed: Decides the moments.
    """
    server = Server.start()
    with server.process:  # leaving closes its stdin, which ends it
        return _kill_runs(server, root, kills, kills_per_run, random.Random(seed))


def _kill_runs(
    server: Server, root: pathlib.Path, kills: int, kills_per_run: int, chance: random.Random
) -> Outcome:
    outcome, alone, seconds = Outcome(), {}, {}
    names = ("stages", "players")
    for name in names:
        for workdir in (root / f"{name}-first", root / f"{name}-alone"):  # the first fills caches
            server.begin(name, workdir)
            start = time.monotonic()
            server.end(workdir)
            seconds[name] = time.monotonic() - start
        alone[name] = files_of(workdir)
    while outcome.kills < kills:
        name = names[outcome.runs % len(names)]
        workdir = root / f"{name}-{outcome.runs}"
        for _ in range(min(kills_per_run, kills - outcome.kills)):
            aims = outcome.kills % 2 == 0
            process, before = server.begin(name, workdir), set(unfinished(workdir))
            if aims:
                kill_in_checkpoint(process, workdir, chance)
            else:
                kill_at(process, chance.uniform(0, seconds[name]))
            if not server.end(workdir):
                break  # it had ended; the next command would only say so
            outcome.kills += 1
            outcome.aimed += aims
            outcome.hits += bool(set(unfinished(workdir)) - before)
        server.begin(name, workdir)
        if server.end(workdir):
            raise RuntimeError(f"{workdir} was killed by something else")
        found = files_of(workdir)
        outcome.differences += [
            f"{workdir.name}: {part}"
            for part in dict.fromkeys([*found, *alone[name]])
            if found.get(part) != alone[name].get(part)
        ]
        outcome.runs += 1
        print(outcome, flush=True)
    return outcome


def main() -> None:
    """Kills, compares, and says how many of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_runs(
            pathlib.Path(folder), options.kills, options.kills_per_run, options.seed
        )
    if outcome.differences:
        sys.exit("\n".join(["these differ:", *outcome.differences]))
    print("all ended as those left alone, bit for bit")


if __name__ == "__main__":
    main()
