"""The similarity threshold that a set of held-out images gave, which bounds the rate of false replicas."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from invmm_eval.audits.folder.files import read_object, write_object
from invmm_eval.audits.folder.format import differing
from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.hints import check_types
from invmm_eval.statistics.binomial import most

FILE = "calibration.json"
"""The name of a calibration in its output folder."""
RATE = 0.05
"""The default rate of false replicas."""


@dataclass(frozen=True)
class Calibration:
    """A similarity threshold, and the scores that it follows from.

    Attributes:
        threshold: beta.
        rate: The requested rate of false replicas.
        scores: The best score of each held-out image that did not fail, highest first.
        between: The least threshold by the similarities of different held-out images to each other; None for one image.
        config: What the scores were measured with.
        copies: The similarity that slightly noised held-out images have to themselves, but for a share of ``rate``;
            None in files of earlier versions.
    """

    threshold: float
    rate: float
    scores: tuple[float, ...]
    between: float | None
    config: Mapping[str, Any]
    copies: float | None = None

    @property
    def images(self) -> int:
        """Number of held-out images that were measured."""
        return len(self.scores)

    @property
    def reached(self) -> int:
        """Number of held-out images that reach the threshold."""
        return sum(score >= self.threshold for score in self.scores)

    @property
    def limit(self) -> float:
        """Upper limit of the share of further images like them that reach the threshold, at 95 % confidence."""
        return most(allowed(self.rate, self.images), self.images)

    @property
    def summary(self) -> dict[str, float]:
        """What the config of an audit says of the calibration that set its threshold."""
        return {"rate": self.rate, "images": self.images, "reached": self.reached, "limit": self.limit}

    def check_fit(self, config: Mapping[str, Any]) -> None:
        """Check that the scores were measured with what the audit of a config uses.

        Raises:
            InvMMError: They differ in something that determines the scores.
        """
        if not config["weights"]:
            raise InvMMError(
                "The identity of the model is not known, so nothing shows that the calibration is of it; set the "
                "threshold that it gave by settings."
            )
        if names := differing(_basis(self.config), _basis(config)):
            raise InvMMError(
                f"The calibration differs from this audit in {', '.join(names)}; calibrate again with the options of "
                "the audit."
            )

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Raises:
            InvMMError: It cannot be written.
        """
        with on_disk(f"The calibration cannot be written to {path}"):
            write_object(Path(path), asdict(self) | self.summary, indent=1)

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read what :meth:`save` wrote.

        Raises:
            InvMMError: The file is missing, or no calibration.
        """
        try:
            values = {"copies": None, **read_object(Path(path))}
            saved = cls(**{field.name: values[field.name] for field in fields(cls)})
            check_types(saved)
            allowed(saved.rate, saved.images)
            _basis(saved.config)
        except (OSError, ValueError, KeyError, TypeError, InvMMError) as error:
            raise InvMMError(f"{path} is no calibration that can be read; invmm-eval calibrate writes one.") from error
        return saved


def allowed(rate: float, images: int) -> int:
    """The number of held-out images that may reach the threshold.

    Raises:
        InvMMError: The images are too few for the rate.
    """
    if not 0 < rate < 1:
        raise InvMMError(f"The rate is {rate}; it must be between 0 and 1.")
    count = math.floor(rate * (images + 1)) - 1
    if count < 0:
        raise InvMMError(
            f"With {held_out_images(images)} no rate below {1 / (images + 1):.2g} can be guaranteed; give "
            f"{math.ceil(1 / rate) - 1} or more, or choose a higher rate."
        )
    return count


def held_out_images(count: int) -> str:
    """``1 held-out image``, or ``2,000 held-out images``."""
    return "1 held-out image" if count == 1 else f"{count:,} held-out images"


def _basis(config: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the scores, as JSON holds it."""
    parts = {key: config[key] for key in ("weights", "backbone", "similarity", "noise")}
    recipe = {key: value for key, value in config["recipe"].items() if key not in ("name", "threshold", "stop")}
    return dict(json.loads(json.dumps({**parts, **recipe})))
