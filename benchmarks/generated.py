"""Generated data for every kind of source, so that no network is needed to measure them."""

from __future__ import annotations

import contextlib
import io
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

ALIGNED = (218, 178)
"""Height and width of an aligned image of CelebA."""


def pictures(count: int, height: int, width: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yields smooth colour images with a little noise, which compress about as photographs do."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + generator.integers(-8, 9, (height, width, 3), dtype=np.int16)
        yield np.clip(noisy, 0, 255).astype(np.uint8)


def write_archive(path: pathlib.Path, count: int) -> None:
    """Writes an archive in MNIST's shape, one test image for every six to train on."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", count), ("test", max(count // 6, 1))):
        arrays[f"{split}_image"] = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        arrays[f"{split}_label"] = generator.integers(0, 10, size)
    np.savez(path, **arrays)


def write_folder(path: pathlib.Path, count: int, height: int, width: int) -> None:
    """Writes image files, PNG and JPEG in turn."""
    from PIL import Image

    path.mkdir()
    for number, pixels in enumerate(pictures(count, height, width)):
        Image.fromarray(pixels).save(path / f"{number:06d}.{('png', 'jpg')[number % 2]}")


def write_prepared(path: pathlib.Path, count: int) -> str:
    """Prepares aligned images as array_record with TensorFlow Datasets; returns their name."""
    import tensorflow_datasets as tfds
    from PIL import Image

    class GeneratedFaces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Images of CelebA's size."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(*ALIGNED, 3), encoding_format="jpeg")
            features = tfds.features.FeaturesDict({"image": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, pixels in enumerate(pictures(count, *ALIGNED)):
                encoded = io.BytesIO()
                Image.fromarray(pixels).save(encoded, "jpeg", quality=90)
                encoded.seek(0)
                yield number, {"image": encoded}

    # Its messages would fall into the midst of a table.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        GeneratedFaces(data_dir=str(path), file_format="array_record").download_and_prepare()
    return "generated_faces"
