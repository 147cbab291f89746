"""The picture of the README, drawn from a finished run of the default job.

subnet-search run --out runs/digits && python -m benchmarks.picture --run runs/digits
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.colors import ListedColormap

from benchmarks import rows
from subnet_search import load_data, load_ensemble

INK, FAINT = "#1b2a41", "#e6e9ef"
INSIDE, OUTSIDE = "#2a9d8f", "#e76f51"


def main(run: Path = Path("runs/digits"), out: Path = rows.RESULTS / "digits.png") -> None:
    """Draws masks on the left and epistemic uncertainty on the right.

    Args:
        run: Folder of the run.
        out: The picture.
    """
    ensemble = load_ensemble(run / "ensemble")
    masks = {name: mask for name, mask in ensemble.masks.masks.items() if not bool(mask.all())}
    joined = torch.cat(list(masks.values()), dim=1).int().numpy()
    digits = ensemble.predict(load_data("digits:test", ensemble.card).images).epistemic.numpy()
    photos = ensemble.predict(load_data("photos", ensemble.card).images).epistemic.numpy()

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.9), width_ratios=(1.5, 1), layout="constrained")
    left.imshow(joined, aspect="auto", cmap=ListedColormap([FAINT, INK]), interpolation="nearest")
    borders = np.cumsum([mask.shape[1] for mask in masks.values()])
    for border in borders[:-1]:
        left.axvline(border - 0.5, color="white", linewidth=3)
    middles = borders - np.array([mask.shape[1] for mask in masks.values()]) / 2
    left.set_xticks(middles - 0.5, list(masks), fontsize=7)
    left.set_yticks(range(ensemble.members), [f"member {k + 1}" for k in range(ensemble.members)])
    left.set_title("channels that each member keeps", fontsize=10, loc="left", color=INK)
    left.tick_params(length=0)

    edges = np.linspace(0, max(photos.max(), digits.max()), 30)
    for values, color, label in ((digits, INSIDE, "digits (test)"), (photos, OUTSIDE, "patches of photographs")):
        share = np.full(len(values), 100 / len(values))
        right.hist(values, edges, weights=share, color=color, alpha=0.75, label=label)
    right.set_title("does it know when it does not know?", fontsize=10, loc="left", color=INK)
    right.set_xlabel("epistemic uncertainty, nats", fontsize=9)
    right.set_ylabel("% of the images", fontsize=9)
    right.legend(frameon=False, fontsize=9)
    for axis in (left, right):
        axis.spines[:].set_visible(False)
    out.parent.mkdir(exist_ok=True)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    tyro.cli(main)
