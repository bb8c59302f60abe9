"""The picture of a report in docs/report.md: the reference model, audited with a few pictures.

python benchmarks/report_picture.py    # about a minute on one CPU core, with Chromium; writes docs/report.png
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from invmm_eval.audits.images import Source
from invmm_eval.audits.options import Choices, ModelOptions, Resources
from invmm_eval.audits.plan import make_plan
from invmm_eval.reference import MICRO_BATCH, MODEL, THRESHOLD, choose, pictures
from invmm_eval.reports import report
from tests.helpers.browser import screenshot, start

ROOT = Path(__file__).resolve().parents[1]
DOSES = (256, 64, 0)


def audit(folder: Path) -> None:
    """Two pictures of each dose, and a file that is no picture."""
    os.chdir(ROOT)
    model = Path(MODEL).relative_to(ROOT)
    chosen = [picture for picture in choose(pictures(), each=2, held_out=2) if picture.copies in DOSES]
    settings = {"threshold": THRESHOLD}
    choices = Choices(similarity="pixel-cosine", settings=settings)
    plan = make_plan(ModelOptions(source=model), choices, device="cpu")
    sources = [Source(f"{picture.name}.png", picture.image) for picture in chosen]
    sources.append(Source("damaged.png", b"no picture"))
    list(plan.run(sources, Resources(micro_batch=MICRO_BATCH), out=folder))


def main() -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, TemporaryDirectory() as profile:
        audit(Path(folder))
        browser = start(Path(profile))
        if browser is None:
            raise SystemExit("There is no Chromium with its chromedriver here; install both.")
        browser.get(report(folder).as_uri())
        browser.execute_script("document.querySelector('tbody button').click()")
        end = browser.execute_script("return document.querySelector('table').getBoundingClientRect().bottom + scrollY")
        screenshot(browser, ROOT / "docs" / "report.png", round(end) + 40)
        browser.quit()


if __name__ == "__main__":
    main()
