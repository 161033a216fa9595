"""`Pair`, two unpaired domains of images, and the options and the function that open one."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from vaeflow._util.messages import shown
from vaeflow.data.config import DataConfig, open_dataset, takes_data_dir, takes_image_size
from vaeflow.data.dataset import Dataset
from vaeflow.data.images import Crop


class Pair(NamedTuple):
    """Two domains whose images have the same height and width; channels may differ.

    They are unpaired: nothing relates an image of one to an image of the other, and batches of the
    two are sampled in independent orders, even where both have one source.

    Attributes:
      a: The first domain.
      b: The second domain.
    """

    a: Dataset
    b: Dataset


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """The two domains to translate between."""

    a: str = "embedded:digits"
    """Source of the first domain: embedded:faces, face-edges, digits, drawings or sprites,
    npz:PATH, idx:PATH, folder:PATH, tfds:NAME or hf:PATH; see `vaeflow.data.open_dataset`."""

    b: str = "embedded:drawings"
    """Source of the second domain, one of the same."""

    image_size: int | None = None
    """Height and width in pixels that images are brought to, for the domains from folder:, tfds:
    and embedded:sprites. The others are never resampled."""

    crop_a: Crop = "center"
    """Cropping of the images of a before resizing, for folder: and tfds:. left and right:
    halves, where files hold a drawing and a photograph side by side."""

    crop_b: Crop = "center"
    """Cropping of the images of b before resizing, as for a."""

    fold: int = 0
    """Which of ten folds to hold out of both, 0 to 9, where the data don't come with splits."""

    flip: bool = False
    """Mirror training images of both left to right at random."""

    data_dir: str | None = None
    """Folder of TensorFlow Datasets, for tfds: only. By default its default folder."""


def open_pair(config: PairConfig) -> Pair:
    """Opens the two domains that `config` names, each by `vaeflow.data.open_dataset`.

    ``image_size`` and ``data_dir`` go to the domains whose sources take them.

    Raises:
      ValueError: A domain can't be opened, which begins with its name; an option fits neither of
        them; or their images differ in height or width.
    """
    sources = (config.a, config.b)
    for name, takes in (("image_size", takes_image_size), ("data_dir", takes_data_dir)):
        value = getattr(config, name)
        if value is not None and not any(map(takes, sources)):
            raise ValueError(
                f"{name} must be None, as neither a={shown(config.a, 80)} nor"
                f" b={shown(config.b, 80)} takes it, got {shown(repr(value))}"
            )
    pair = Pair(_open("a", config, config.crop_a), _open("b", config, config.crop_b))
    if pair.a.shape[:2] != pair.b.shape[:2]:
        shapes = ["x".join(map(str, dataset.shape)) for dataset in pair]
        raise ValueError(
            f"a and b must have the same height and width, got {shown(config.a)} of {shapes[0]}"
            f" and {shown(config.b)} of {shapes[1]}"
        )
    return pair


def _open(domain: str, config: PairConfig, crop: Crop) -> Dataset:
    source = getattr(config, domain)
    options = DataConfig(
        source,
        image_size=config.image_size if takes_image_size(source) else None,
        crop=crop,
        fold=config.fold,
        data_dir=config.data_dir if takes_data_dir(source) else None,
    )
    try:
        return open_dataset(options)
    except ValueError as error:
        raise ValueError(f"{domain}: {error}") from error
