"""Did the checkpoints of a fine-tuning memorize the images? Several seeds, one table, paired tests, and figures.

Each checkpoint is audited with each seed, in a folder of its own, so that the same command resumes. Seeds are not
further images: the tests take one share per image, the median over its seeds.

    python examples/compare_checkpoints.py step-100 step-200 step-300 --images pictures --out study

It writes to the folder:

- ``results.parquet``: a row for each checkpoint, seed and image, with all columns of a result;
- ``tests.csv``: each checkpoint against the first one, by Wilcoxon's signed-rank test; ``p_holm`` is corrected for the
  number of tests;
- ``shares.png``: the share of plain samples that are copies of each image, over the checkpoints;
- ``curves.png``: how often noise at a distance from plain noise gives a copy, in the last checkpoint.
"""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import invmm_eval
from invmm_eval.search.status import RAREST
from invmm_eval.statistics.paired import changed_ranks


def tested(shares: pd.DataFrame) -> pd.DataFrame:
    """Test whether the shares of each checkpoint differ from those of the first one.

    Args:
        shares: A row for each image, a column for each checkpoint; those below ``RAREST`` are taken as that.
    """
    nats = shares.clip(lower=RAREST).map(lambda share: -math.log(share))
    first, *others = nats.columns
    tests = {name: changed_ranks(nats[first].tolist(), nats[name].tolist()) for name in others}
    found = pd.DataFrame(tests.values(), index=pd.Index(tests, name="checkpoint")).sort_values("p")
    found["p_holm"] = (found["p"] * np.arange(len(found), 0, -1)).cummax().clip(upper=1)
    return found.reindex(others)


def draw_shares(shares: pd.DataFrame, path: Path) -> None:
    """Draw a line for each image."""
    figure, axes = plt.subplots(figsize=(8, 5))
    shares.clip(lower=RAREST).T.plot(ax=axes, marker="o", logy=True)
    axes.axhline(RAREST, linestyle=":", color="grey", label="no copy found, or less")
    axes.set(xlabel="checkpoint", ylabel="share of plain samples that are copies", xticks=range(len(shares.columns)))
    axes.set_xticklabels(shares.columns)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, bbox_inches="tight")


def draw_curves(results: Iterable[invmm_eval.Result], path: Path) -> None:
    """Draw the dose-response curve of each image of which a copy was found; the dose d has d^2 / 2 nats."""
    figure, axes = plt.subplots(figsize=(8, 5))
    for result in results:
        if result.response and not result.response.falls:
            parts = result.response.parts(4)
            distances = np.linspace(0, parts[-1][0], 50).tolist()
            (line,) = axes.plot(distances, result.response.chance(distances), label=result.name)
            axes.plot([s for s, _ in parts], [count.rate for _, count in parts], "o", color=line.get_color())
            if result.ed50:
                axes.axvline((2 * result.ed50.nats) ** 0.5, linestyle=":", color=line.get_color())
    axes.set(xlabel="distance from plain noise; dotted: ED50", ylabel="share of copies")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    """Audit the checkpoints, and write the table, the tests and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="folders of save_pretrained, the earliest first")
    parser.add_argument("--images", required=True, help="folder, or dataset:NAME[:split[:column]]")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    chosen = parser.parse_args()

    audits = {
        (checkpoint.name, seed): invmm_eval.audit(
            checkpoint, chosen.images, seed=seed, out=chosen.out / f"{checkpoint.name}-{seed}"
        )
        for checkpoint in chosen.checkpoints
        for seed in range(chosen.seeds)
    }
    frames = {key: results.to_pandas() for key, results in audits.items()}
    table = pd.concat(frames, names=["checkpoint", "seed"]).reset_index(["checkpoint", "seed"])
    table.to_parquet(chosen.out / "results.parquet")

    names = [checkpoint.name for checkpoint in chosen.checkpoints]
    shares = table.pivot_table("plain_share", ["name", "digest"], "checkpoint", "median")[names].droplevel("digest")
    found = tested(shares)
    found.to_csv(chosen.out / "tests.csv")
    draw_shares(shares, chosen.out / "shares.png")
    draw_curves(audits[names[-1], 0], chosen.out / "curves.png")
    print(shares.to_string(float_format="{:.2g}".format))
    print(found.to_string(float_format="{:.2g}".format))


if __name__ == "__main__":
    main()
