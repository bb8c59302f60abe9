"""What a request is expected to cost, in words."""

from collections.abc import Iterator
from datetime import timedelta

from invmm_eval.audits.options import Extent
from invmm_eval.audits.price import Price, Searches


def lines(price: Price) -> Iterator[str]:
    """The number of images, the rows and time of each phase, and the disk."""
    yield f"{price.images:,} {'image' if price.images == 1 else 'images'}. Nothing was written."
    screen = price.images * price.screen_rows
    if screen:
        yield f"Screen: {screen:,} network rows, about {_time(price, screen, price.screen_row_seconds)}."
    if searches := price.searches:
        clean, memorized = searches.clean_rows, searches.memorized_rows
        yield (
            f"Search: {clean:,} rows ({_time(price, clean, searches.row_seconds)}) for an image that is not memorized, "
            f"{memorized:,} ({_time(price, memorized, searches.row_seconds)}) for one that comes back at once"
            + (f", and {searches.common_rows:,} once per process." if searches.common_rows else ".")
        )
        yield from _totals(price, searches, screen)
        yield f"Disk: at most {_bytes(searches.images * searches.image_bytes + price.images * 300 * bool(screen))}."
    on = f"{price.processes} processes like this one" if price.processes > 1 else "this process"
    yield f"Times are those of {on}, by a probe of the model on {price.device}; a row with gradients counts three."


def _totals(price: Price, searches: Searches, screen: int) -> Iterator[str]:
    common = searches.common_rows * price.processes
    seconds = screen * price.screen_row_seconds
    least, most = sorted((searches.clean_rows, searches.memorized_rows))
    if price.extent is None:
        ends = [searches.images * rows + common for rows in (least, most)]
        times = " to ".join(_time(price, rows, searches.row_seconds) for rows in ends)
        yield f"Together: {ends[0]:,} to {ends[1]:,} rows, {times}."
        return
    rows = searches.images * searches.clean_rows + common
    time = _time(price, 1, seconds + rows * searches.row_seconds)
    yield (
        f"If none is memorized, {searches.images:,} images are searched: {screen + rows:,} rows together, {time}. Each "
        f"memorized image adds its search, and up to {price.extent.clean - 1:,} others behind it."
    )
    if price.extent.budget is not None:
        yield _within(price, price.extent, searches, screen)


def _within(price: Price, extent: Extent, searches: Searches, screen: int) -> str:
    """What a budget suffices for."""
    budget, unit = extent.limit()
    control = min(extent.control, price.images) * searches.clean_rows
    if unit == "seconds":
        left = (budget * price.processes - screen * price.screen_row_seconds) / searches.row_seconds - control
    else:
        left = budget - screen - control
    of = f"The budget of {extent.budget}"
    if left <= 0:
        return f"{of} does not suffice for the screen and the control sample, which are completed all the same."
    suspects = min(price.images, max(1, int(left / searches.clean_rows)))
    return f"{of} suffices for the screen, the control sample and about {suspects:,} suspects that are not memorized."


def _time(price: Price, rows: int, row_seconds: float) -> str:
    seconds = rows * row_seconds / price.processes
    return f"{seconds:.2g} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def _bytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
