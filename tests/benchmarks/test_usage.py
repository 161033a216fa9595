"""Scripts of common jobs: what is counted in them, ours are the shortest, and they run."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from benchmarks.usage import __main__ as usage
from benchmarks.usage import checks, data
from benchmarks.usage.counts import count
from benchmarks.usage.jobs import FOLDER, JOBS

SCRIPT = '''
"""A docstring
of two lines."""

import os
import lib.train as train, other
from lib.data import (
    Loader,
    Unused as Renamed,
)
from benchmarks.usage.checks import check_fit
from benchmarks.usage.data import rows

import numpy as np


class Mine(other.base.Base):  # a comment
    """Not code."""

    field: int = 3

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def _call(self, x):

        # Nor is this.
        return np.tanh(other.exp(x)) * self.weight.mean() + self.field


model = train.Model(
    Loader(rows),
    size=2,
)
for row in Loader(rows):
    model.step(row).inner.step()
path = os.path.join("a", "b")
check_fit(
    model,
    path,
)
'''


def test_counts_of_a_script():
    found = count(SCRIPT)
    # class, field, two methods of two and one statements; model, for, its body, path.
    assert found.statements == 1 + 1 + (1 + 2) + (1 + 1) + 1 + 2 + 1
    assert found.lines == 1 + 1 + 3 + 2 + 4 + 2 + 1
    assert found.imports == 6  # os, train, other, Loader, Renamed, np
    assert found.concepts == {
        "other.base.Base",
        "_call",
        "lib.train.Model",
        "lib.data.Loader",
        "step",
        "inner",
    }


@pytest.mark.parametrize(
    ("source", "statements", "lines"),
    [
        ("", 0, 0),
        ("x = 1\n", 1, 1),
        ("if x:\n    y = 1\nelse:\n    y = 2\n", 3, 4),
        ('x = """\n\nthree"""\n', 1, 3),
        ("from benchmarks.usage.checks import check\ncheck(1)\ny = check(2)\n", 1, 1),
        ("from benchmarks.usages import check\ncheck(1)\n", 1, 1),
    ],
)
def test_counts_of_statements_and_lines(source, statements, lines):
    assert count(source)[:2] == (statements, lines)


@pytest.mark.parametrize(
    ("source", "concepts"),
    [
        ("import a.b\na.b.c(a.b.c)\n", {"a.b.c"}),
        ("from a import b as c\nc.d.e(1)[0].f\n", {"a.b.d.e", "f"}),
        ("import numpy as np\nnp.linalg.det(x).T\n", set()),
        ("import torch\ntorch.zeros(3).exp().fit(torch.exp(x))\n", {"torch.zeros", "fit"}),
        ("from typing import Any\nx: Any = {}\n", set()),
        ("class Free:\n    def go(self):\n        self.a.b\n", {"a", "b"}),
    ],
)
def test_counts_of_concepts(source, concepts):
    assert count(textwrap.dedent(source)).concepts == concepts


def test_every_script_is_of_a_job_and_every_job_has_its_scripts():
    found = {path.stem for path in FOLDER.glob("*_*.py") if not path.stem.startswith("_")}
    assert found == {f"{name}_{each}" for name, job in JOBS.items() for each in job.libraries}


@pytest.mark.parametrize("name", JOBS)
def test_ours_is_no_longer_than_the_shortest_peer(name):
    job = JOBS[name]
    counts = {each: count(job.path(name, each).read_text()) for each in job.libraries}
    ours = counts.pop("ours")
    assert counts
    assert ours.lines <= min(peer.lines for peer in counts.values())
    assert ours.statements <= min(peer.statements for peer in counts.values())
    assert len(ours.concepts) <= min(len(peer.concepts) for peer in counts.values())
    if name == "fit":
        assert ours.statements <= 6


def test_checks_refuse_wrong_results():
    generator = np.random.default_rng(0)
    normal = generator.normal(size=(1000, 6))
    good = np.full(10_000, -4.5)
    checks.check_fit(good, normal, good)
    for wrong in (
        (good - 1, normal, good - 1),
        (good, normal, good + 1e-3),
        (good, 2 * normal, good),
        (good[:5], normal, good[:5]),
        (np.where(np.arange(10_000), good, np.nan), normal, good),
    ):
        with pytest.raises(ValueError, match=r"must"):
            checks.check_fit(*wrong)
    plane = generator.normal(size=(10_000, 2))
    banana = np.stack([plane[:, 0], plane[:, 0] ** 2 + plane[:, 1] / 2], axis=1)
    exact = -data.energy(banana) - data.LOG_NORMALIZER
    checks.check_energy(banana, exact)
    for wrong in ((plane, exact), (banana, exact - 1), (banana, exact + 1)):
        with pytest.raises(ValueError, match="KL"):
            checks.check_energy(*wrong)


def test_checks_refuse_wrong_images(capsys):
    images = data.test_images
    noisy = np.clip(images + 8.0, 0, 255).astype(np.uint8)
    checks.check_vae(noisy, images[:16])
    assert capsys.readouterr().out == '{"mean squared error": "0.0009"}\n'
    for wrong in (
        (images[::-1], images[:16]),
        (images, images[:1].repeat(16, 0)),
        (images, images[:15]),
        (images.astype(np.float32), images[:16]),
    ):
        with pytest.raises(ValueError, match=r"must"):
            checks.check_vae(*wrong)


def test_a_script_that_fails_ends_the_run(tmp_path, monkeypatch):
    """Also one that doesn't check its result."""
    package = tmp_path / "benchmarks" / "usage"
    package.mkdir(parents=True)
    (package / "wrong.py").write_text("raise ValueError('as it should')\n")
    (package / "silent.py").write_text("")
    (package / "right.py").write_text("print('noise')\nprint('{\"nats\": \"1\"}')\n")
    monkeypatch.setattr(usage, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match="as it should"):
        usage.execute(package / "wrong.py", 1)
    with pytest.raises(RuntimeError, match="without a check"):
        usage.execute(package / "silent.py", 1)
    seconds, busy, quality = usage.execute(package / "right.py", 1)
    assert busy > 0
    assert seconds > 0
    assert quality == {"nats": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_ours_runs(name, capsys):
    usage.main(usage.Config(jobs=(name,), libraries=("ours",)))
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| ours"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert len(cells) == 8
    assert all(float(cell) > 0 for cell in cells[1:7])
    assert cells[7]
