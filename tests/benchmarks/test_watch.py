"""A fine-tuning of the reference model is stopped, and the last checkpoint before is clean."""

import re
import subprocess
import sys
from pathlib import Path

from invmm_eval import audit
from invmm_eval.reference import THRESHOLD, pictures
from invmm_eval.search.status import Verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "stop_when_memorized.py"


def test_the_picture_that_was_repeated_by_mistake_is_found_among_the_training_pictures(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"Stopped at step (\d+): (.*): memorized, .*\n.* picture: checkpoint-(\d+)\n$", told)
    assert found, told
    last, name, clean = found.groups()
    repeated = next(picture for picture in pictures() if picture.copies == 0)
    assert name == repeated.name
    assert int(clean) == int(last) - 50 > 0

    def verdict(step: str) -> Verdict | None:
        """By a search with other random numbers."""
        model, settings = tmp_path / f"checkpoint-{step}", {"threshold": THRESHOLD}
        [result] = audit(model, [repeated.image], similarity="pixel-cosine", settings=settings, seed=1)
        return result.verdict

    assert verdict(clean) is Verdict.NOT_REPLICATED
    assert verdict(last) is Verdict.MEMORIZED
