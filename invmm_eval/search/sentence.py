"""The sentence about one image that every output says first: how many plain samples are copies of it."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from invmm_eval.search.status import Verdict
from invmm_eval.search.trace import Check
from invmm_eval.search.upgrade import PLAIN_SHARE
from invmm_eval.statistics.binomial import CONFIDENCE
from invmm_eval.statistics.importance import SURE, PlainShare

Direction = Literal["nearest", "less", "more"]

_BOTH, _ONE = (f"{100 * confidence:g} %" for confidence in (CONFIDENCE, (1 + CONFIDENCE) / 2))


class Judgeable(Protocol):
    """What the sentence needs of a result."""

    @property
    def verdict(self) -> Verdict:
        """What it means."""

    @property
    def error(self) -> str | None:
        """Why it failed."""

    @property
    def prompted(self) -> bool:
        """Whether there is a prompt."""

    @property
    def captioned(self) -> bool:
        """Whether the prompt is the image's caption."""

    @property
    def check(self) -> Check | None:
        """The last check."""

    @property
    def estimates(self) -> Mapping[str, Mapping[str, Any]]:
        """The values of each estimator."""

    @property
    def plain_share(self) -> PlainShare | None:
        """The share of plain samples that are copies."""

    @property
    def least_share(self) -> float:
        """Its lower limit."""


def one_in(share: float, toward: Direction = "nearest") -> str:
    """A share, in (0, 1], as people read it: ``1 in 39``, and above one half ``95 in 100``.

    Two significant digits; powers of ten from a trillion on.

    Args:
        share: The share.
        toward: Whether to round to the nearest, a smaller or a larger share.
    """
    if share > 0.5:
        return f"{-_whole(-100 * share, toward)} in 100"
    count = 1 / share
    if count >= 1e12:
        return f"1 in 10^{_whole(math.log10(count), toward)}"
    place = 10.0 ** (math.floor(math.log10(count)) - 1)
    count = _whole(count / place, toward) * place
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"1 in {count / size:.3g} {word}"
    return f"1 in {count:.2g}" if count < 10 else f"1 in {count:,.0f}"


def _whole(value: float, toward: Direction) -> int:
    """A whole number near a value that falls as the share rises; errors of arithmetic do not count."""
    value = round(value, 6)
    return {"nearest": round(value), "less": math.ceil(value), "more": math.floor(value)}[toward]


def share_text(share: float) -> str:
    """An estimated share for people."""
    return one_in(share) if share else "none"


def share_ends(low: float, high: float) -> str:
    """The limits of a share for people, the larger share first; a limit of 0 or 1 says nothing and is left out."""
    if high == 1:
        return f"at least {one_in(low, 'less')}" if low else ""
    if not low:
        return f"fewer than {one_in(high, 'more')}"
    return f"{one_in(high, 'more')} to {one_in(low, 'less')}"


def plain_prompt(result: Judgeable) -> str | None:
    """The prompt of the plain samples that a result speaks of, such as ``its caption at guidance 7``.

    None where there are no prompts, empty where these samples have none.
    """
    if not result.prompted or result.check is None:
        return None
    scale = result.estimates.get(PLAIN_SHARE, {}).get("plain_guidance", result.check.best_scale)
    return f"{'its caption' if result.captioned else 'a searched prompt'} at guidance {scale:g}" if scale else ""


def plain_samples(result: Judgeable) -> str:
    """What the share of a result is a share of, such as ``plain samples with its caption at guidance 7``."""
    prompt = plain_prompt(result)
    return "plain samples" if prompt is None else f"plain samples {f'with {prompt}' if prompt else 'without a prompt'}"


def sentence(result: Judgeable) -> str:
    """What a result says about plain sampling, without a full stop.

    ``about`` needs an upper limit, which only plain samples support, and a standard error of no more than half of the
    share (:data:`~invmm_eval.statistics.importance.SURE`); otherwise the share is ``between`` its limits, or ``at
    least`` the lower one. What gave no copy says how many plain samples gave none, or that none were counted.
    """
    share, values, plain = result.plain_share, result.estimates.get(PLAIN_SHARE, {}), plain_samples(result)
    if result.verdict is Verdict.FAILED:
        return f"could not be measured: {(result.error or 'the reason is not known').rstrip('.')}"
    if share and share.high < 1:
        if not share.rate:
            return f"no copy in {values['plain_samples']:,} {plain} ({_BOTH} confidence: {share_ends(0, share.high)})"
        if (values.get("relative_error") or 0) <= SURE:
            return f"about {_copies(share.rate, plain)} ({_BOTH} confidence: {share_ends(share.low, share.high)})"
        if share.low:
            ends = f"between {one_in(share.low, 'less')} and {one_in(share.high, 'more')} {plain}"
            return f"{ends} is a copy ({_BOTH} confidence; estimate {one_in(share.rate)})"
    if result.least_share:
        why = f"estimate {one_in(share.rate)}" if share else "by the KL of the noise and its rate of copies"
        return f"at least {_copies(result.least_share, plain, 'less')} ({_ONE} confidence; {why})"
    if result.verdict is Verdict.REPLICABLE:
        return f"copies from chosen noise; how many {plain} are copies was not measured"
    return f"no copy found; how many {plain} are copies was not measured"


def _copies(share: float, plain: str, toward: Direction = "nearest") -> str:
    written = one_in(share, toward)
    return f"{written} {plain} {'is a copy' if written.startswith('1 in') else 'are copies'}"
