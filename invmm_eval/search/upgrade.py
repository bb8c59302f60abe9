"""Records of results that earlier versions wrote. This module does not import torch."""

from collections.abc import Mapping
from typing import Any

DOSE_RESPONSE = "dose-response"
CONFIRMATION = "confirmation"
PLAIN_SHARE = "plain-share"
"""The built-in estimators. Before records held ``estimates``, values of the first two were keys of their own."""

_DEFAULTS: Mapping[str, Any] = {
    **dict.fromkeys(("caption", "kl", "dimensions", "prompt", "picture_bits", "rows", "error", "traceback")),
    **dict.fromkeys(("similarity", "guidance", "passed")),
    "judged_by": "least",
}


def upgraded_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A ``Result.record()`` of this version of the package or an earlier one, with the keys of this version."""
    upgraded = {**_DEFAULTS, **record}
    if upgraded["prompt"] is True:
        upgraded["prompt"] = upgraded["caption"]
    if "estimates" not in record:
        upgraded["estimates"] = {}
        if outcomes := record.get("outcomes"):
            upgraded["estimates"][DOSE_RESPONSE] = {"outcomes": outcomes}
        if confirmed := record.get("confirmed"):
            upgraded["estimates"][CONFIRMATION] = dict(zip(("hits", "drawn"), confirmed, strict=True))
    if "ed50" in record and (curve := upgraded["estimates"].get(DOSE_RESPONSE)):
        doses = {name: record.get(name) for name in ("ed50", "ed90")}
        upgraded["estimates"] = {**upgraded["estimates"], DOSE_RESPONSE: {**doses, **curve}}
    return upgraded
