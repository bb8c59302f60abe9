"""The pictures of the documents that show no measurement: docs/noise.png and docs/report.png.

    python -m benchmarks.pictures          # about a minute on one CPU core; the report needs Chromium

The noise is what a KL of 0.05, 0.5 and 3 nats per dimension does: a mean ``mu`` of length ``sqrt(2 D KL)`` costs that
KL. Here it points towards a picture: the eye sees when the noise begins to show it. The report is one of the reference
model, audited with two pictures of some numbers of copies, and a file that is no picture.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.common.script import parser
from invmm_eval import audit, report
from invmm_eval.audits.pictures import Source
from invmm_eval.reference import MICRO_BATCH, NAME, THRESHOLD, choose, pictures
from tests.helpers.browser import screenshot, start

DOCS = Path(__file__).parents[1] / "docs"
VALUES = (0.0, 0.05, 0.5, 3.0)
DOSES = (256, 64, 0)


def noise(path: Path) -> None:
    """Noise ``mu + z`` with ``mu`` along a centred picture, so that ``KL(N(mu, I) || N(0, I)) / D`` is the value."""
    picture = torch.from_numpy(np.array(pictures()[0].image)).float() / 255
    z, direction = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0)), picture - picture.mean()
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    for axis, kl in zip(figure.subplots(1, len(VALUES)), VALUES, strict=True):
        mu = direction * (2 * kl / direction.square().mean()).sqrt()
        axis.imshow(((mu + z) / 6 + 0.5).clamp(0, 1))
        axis.set_title(f"{kl:g} nats per dimension" if kl else "standard normal", fontsize=11)
        axis.axis("off")
    figure.savefig(path, dpi=100)


def page(path: Path) -> None:
    """The report of an audit."""
    chosen = [picture for picture in choose(pictures(), each=2, held_out=2) if picture.copies in DOSES]
    sources = [Source(f"{picture.name}.png", picture.image) for picture in chosen]
    sources.append(Source("damaged.png", b"no picture"))
    with TemporaryDirectory() as folder, TemporaryDirectory() as profile:
        settings = {"threshold": THRESHOLD}
        audit(NAME, sources, similarity="pixel-cosine", settings=settings, out=folder, micro_batch=MICRO_BATCH)
        browser = start(Path(profile))
        if browser is None:
            raise SystemExit("There is no Chromium with its chromedriver here; install both.")
        browser.get(report(folder).as_uri())
        browser.execute_script("document.querySelector('tbody button').click()")
        end = browser.execute_script("return document.querySelector('table').getBoundingClientRect().bottom + scrollY")
        screenshot(browser, path, round(end) + 40)
        browser.quit()


def main() -> None:
    parser(__doc__, json=False).parse_args()
    torch.set_num_threads(1)
    noise(DOCS / "noise.png")
    page(DOCS / "report.png")


if __name__ == "__main__":
    main()
