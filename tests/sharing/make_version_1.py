"""Made `version_1.safetensors`, once, with the vaeflow that wrote version 1 of the format.

Not to be run again: the file stands for those that people keep.
"""

import pathlib

import ml_dtypes
import numpy as np

import vaeflow as vf

PATH = pathlib.Path(__file__).with_name("version_1.safetensors")
CONFIG = {
    "experiment": "none",
    "shape": [4, 4, 1],
    "config": {"width": 8, "scale": 0.1, "name": "é"},
}


def variables():
    return {
        "params": {
            "dense": {
                "kernel": np.array([[1.5, -2.25, 0.1], [np.inf, -0.0, 3e-39]], np.float32),
                "bias": np.array([1, -3.140625, 1e30], ml_dtypes.bfloat16),
            },
            "a/b~c": {"": np.array(7, np.int32)},
        },
        "state": {"count": np.array([0, 2**32 - 1], np.uint32), "mask": np.array([True, False])},
        "batch_stats": {},
        "none": np.zeros((0, 3), np.float32),
    }


if __name__ == "__main__":
    assert not PATH.exists(), f"{PATH} is there, and must stay as it is"
    vf.save(PATH, CONFIG, variables())
