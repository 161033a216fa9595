"""Figures of translations between two domains."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from vaeflow import data, plotting, training
from vaeflow.models.munit import DOMAINS, Domain, other_domain
from vaeflow.plotting.images import as_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, COLUMNS = 6, 8
"""Inputs, and translations of each."""

PyTree = Any
Images = np.ndarray


class Drawing:
    """The figures of a run, each in both directions."""

    def __init__(self, model: vf.models.MUNIT, pair: data.Pair, directory: training.RunDirectory):
        self.model, self.pair, self.directory = model, pair._asdict(), directory
        self.decode = jax.jit(functools.partial(model.apply, method="decode"), static_argnums=3)
        self.draw = jax.jit(
            functools.partial(model.apply, method="draw_styles"), static_argnums=(2, 3)
        )

    def save(self, name: str, figure: Figure) -> None:
        plotting.save_figure(self.directory.figures / f"{name}.png", figure)

    def progress(self, step: int, variables: PyTree) -> None:
        """Validation images in styles that are drawn, during training."""
        for to in DOMAINS:
            images = self._images(other_domain(to), "validation", ROWS)
            self.save(f"{_way(to)}_step_{step:07d}", self._in_drawn_styles(variables, images, to))

    def final(self, variables: PyTree) -> None:
        """All figures of the trained model, of test images."""
        for to in DOMAINS:
            images = self._images(other_domain(to), "test", ROWS)
            self.save(f"{_way(to)}_drawn_styles", self._in_drawn_styles(variables, images, to))
            self.save(f"{_way(to)}_styles_of_examples", self._in_styles_of(variables, images, to))
            self.save(f"{_way(to)}_style_interpolation", self._between(variables, images, to))
            self.save(f"{_way(to)}_and_back", self._cycle(variables, images, to))
        self._curves()

    def _in_drawn_styles(self, variables: PyTree, images: Images, to: Domain) -> Figure:
        """Each image in the same styles, drawn from the prior."""
        styles = self.draw(variables, jax.random.key(0), COLUMNS, to)
        return plotting.translations(images, self._table(variables, images, styles, to))

    def _in_styles_of(self, variables: PyTree, images: Images, to: Domain) -> Figure:
        """Each image in the style of each of some images of the domain that it goes to."""
        examples = self._images(to, "test", COLUMNS)
        styles = self._encode(variables, examples, to)[1]
        return plotting.translations(images, self._table(variables, images, styles, to), examples)

    def _between(self, variables: PyTree, images: Images, to: Domain) -> Figure:
        """Each image in styles on the line between those of two examples."""
        ends = self._images(to, "test", 2)
        first, last = self._encode(variables, ends, to)[1]
        weight = jnp.linspace(0, 1, COLUMNS)[:, None]
        styles = (1 - weight) * first + weight * last
        blank = np.full((COLUMNS - 2, *ends.shape[1:]), 255, np.uint8)
        examples = np.concatenate([ends[:1], blank, ends[1:]])
        return plotting.translations(images, self._table(variables, images, styles, to), examples)

    def _cycle(self, variables: PyTree, images: Images, to: Domain) -> Figure:
        """Images, their translations and these brought back, and what their own codes make."""
        source = other_domain(to)
        content, own = self._encode(variables, images, source)
        again = self.decode(variables, content, own, source)
        styles = self.draw(variables, jax.random.key(1), len(images), to)
        there = self.decode(variables, content, styles, to)
        back = self.decode(variables, self._encode(variables, there, to)[0], own, source)
        columns = [as_pixels(each, "images", 4) for each in (again, there, back)]
        return plotting.translations(
            images,
            np.stack(columns, axis=1),
            column_labels=["reconstruction", "translation", "and back"],
        )

    def _curves(self) -> None:
        records = self.directory.read_metrics()
        for name, label in {
            "reconstruction": "mean absolute error, black -1 to white 1",
            "style": "mean absolute error of the style",
            "content": "mean absolute error of the content",
            "adversarial": "squared distance of judgements from 1, summed over scales",
        }.items():
            curves = {f"domain {domain}": f"generator/{name}_{domain}" for domain in DOMAINS}
            self.save(f"{name}_curve", plotting.training_curve(records, curves, {}, label))

    def _encode(
        self, variables: PyTree, images: Images, domain: Domain
    ) -> tuple[jax.Array, jax.Array]:
        content, style = self.model.apply(variables, images, domain, method="encode")
        return content, style.mean()

    def _table(self, variables: PyTree, images: Images, styles: jax.Array, to: Domain) -> Images:
        """Translations, ``[image, style, height, width, channel]``."""
        content, _ = self._encode(variables, images, other_domain(to))
        count = len(styles)
        shown = self.decode(
            variables, jnp.repeat(content, count, axis=0), jnp.tile(styles, (len(images), 1)), to
        )
        return np.asarray(shown).reshape(len(images), count, *shown.shape[1:])

    def _images(self, domain: Domain, split: str, count: int) -> Images:
        return data.stack(getattr(self.pair[domain], split), count)["image"]


def _way(to: Domain) -> str:
    """What figures of translations to a domain begin with."""
    return f"{other_domain(to)}_to_{to}"
