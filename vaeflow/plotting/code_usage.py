"""Histograms of how often codes are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from vaeflow.metrics import code_perplexity, live_codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def code_usage(counts: Mapping[str, Int[np.ndarray, " code"]]) -> Figure:
    """Draws how often each code was used, the most used first, a panel for each codebook.

    A line marks even use. The panel's title has the share of codes that are used at all and the
    perplexity, see `vaeflow.metrics.code_perplexity`.

    Args:
      counts: Counts of codes by the name of the codebook.

    Raises:
      ValueError: If there is no codebook, the counts of one aren't ``[code]``, or as
        `code_perplexity`.
    """
    from matplotlib.figure import Figure

    if not counts:
        raise ValueError("counts must hold at least one codebook, got none")
    figure = Figure(
        figsize=(7.5, 2.4 * len(counts) + 0.4), dpi=150, facecolor="white", layout="constrained"
    )
    panels = figure.subplots(len(counts), 1, squeeze=False)[:, 0]
    for axes, (name, of_codes) in zip(panels, counts.items(), strict=True):
        if np.ndim(of_codes) != 1:
            raise ValueError(f"counts must be [code], got shape {np.shape(of_codes)} of {name}")
        used, perplexity = float(live_codes(of_codes)), float(code_perplexity(of_codes))
        shares = np.sort(of_codes)[::-1] / np.sum(of_codes)
        number = len(shares)
        axes.fill_between(
            np.arange(number + 1),
            np.append(shares, shares[-1]),
            step="post",
            color="#1f5a96",
            linewidth=0,
        )
        axes.axhline(1 / number, color="#6b6b6b", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            "even use",
            (number, 1 / number),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            color="#6b6b6b",
            fontsize=8.5,
        )
        axes.set_title(
            f"{name}: {used:.0%} of {number} codes used, perplexity {perplexity:.0f}",
            loc="left",
            fontsize=10,
        )
        axes.set_xlim(0, number)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("share of latents")
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("codes, the most used first")
    return figure
