"""Progress of long work: a bar on a terminal, a line now and then in a pipe or a file.

Commands show it (``show``); a program that imports the package sees nothing. It goes to the
standard error output, so that other programs can read the results on the standard output. On a
terminal it is tqdm's bar. In a pipe, tqdm would write its bar over itself thousands of times; a
line every ten seconds takes its place there.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Protocol, TypeVar

import tqdm

EVERY = 10.0  # Seconds between lines.
SHORT = 2.0  # Seconds: work that took less ends without a line.
Item = TypeVar("Item")


class _Bar(Protocol):
    def update(self, n: int) -> object: ...

    def set_postfix_str(self, s: str) -> object: ...

    def close(self) -> None: ...


class _State:
    """Whether progress is shown, whether something is counted, what is called before each item."""

    shown = False
    counting = False
    checks: ClassVar[list[Callable[[], None]]] = []


def show() -> None:
    """Shows progress from now on; for commands."""
    _State.shown = True


@contextlib.contextmanager
def checking(check: Callable[[], None]) -> Iterator[None]:
    """Within its body, ``check`` is called before each item that is counted, and may raise."""
    _State.checks.append(check)
    try:
        yield
    finally:
        _State.checks.pop()


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Shows none within its body: training has a log of its own."""
    before, _State.shown = _State.shown, False
    try:
        yield
    finally:
        _State.shown = before


def counted(
    items: Iterable[Item], what: str, unit: str, total: int | None = None, each: int = 1
) -> Iterator[Item]:
    """Yields the items and shows how many are done.

    Counting within counting is not shown: the outer one knows how much there is to do.

    Args:
      items: of any number.
      what: is done with them, as in "scoring pairs".
      unit: what is counted, in the plural, as in "records".
      total: of units; None: not known.
      each: units of an item, such as the rows of a batch. The last item may have fewer.
    """
    for check in _State.checks:
        items = _checked(items, check)
    if not _State.shown or _State.counting:
        yield from items
        return
    _State.counting = True
    bar, done = _bar(what, unit, total), 0
    try:
        for item in items:
            yield item
            new = each if total is None else min(each, total - done)
            done += new
            bar.update(new)
    finally:
        _State.counting = False
        bar.close()


class Meter:
    """Shows how much is done of work that several processes do."""

    def __init__(self, bar: _Bar | None):
        """Takes what shows it; None: nothing does."""
        self._bar = bar

    def update(self, n: int, note: str = "") -> None:
        """Adds ``n`` units, and says something beside them."""
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note)
            self._bar.update(n)


@contextlib.contextmanager
def meter(what: str, unit: str, total: int | None = None) -> Iterator[Meter]:
    """Shows progress that comes in reports; see ``counted``."""
    if not _State.shown or _State.counting:
        yield Meter(None)
        return
    _State.counting = True
    bar = _bar(what, unit, total)
    try:
        yield Meter(bar)
    finally:
        _State.counting = False
        bar.close()


def _checked(items: Iterable[Item], check: Callable[[], None]) -> Iterator[Item]:
    for item in items:
        check()
        yield item


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says before its body what takes long, and after it how long it took."""
    if not _State.shown:
        yield
        return
    began = time.monotonic()
    _say(f"{what} ...")
    yield
    _say(f"{what.split()[0]} ... {duration(time.monotonic() - began)}")


def duration(seconds: float) -> str:
    """Returns a time in its two largest units, as in "15m52s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def progress_line(
    what: str, done: int, total: int | None, unit: str, rate: float, seconds: float
) -> str:
    """Returns a line of progress: what is done, how fast, and the time that is left.

    Args:
      what: is done.
      done: units so far.
      total: of units; None: not known.
      unit: in the plural.
      rate: units per second; 0: not known yet.
      seconds: since the start.
    """
    speed = (f", {rate:,.0f}/s" if rate >= 10 else f", {rate:.2g}/s") if rate else ""
    if not total:
        return f"{what}: {done:,} {unit}{speed}, {duration(seconds)} so far"
    left = f", {duration((total - done) / rate)} left" if rate else ""
    return f"{what}: {done:,} of {total:,} {unit} ({done / total:.0%}){speed}{left}"


class _Lines:
    """Lines in place of a bar."""

    def __init__(self, what: str, unit: str, total: int | None):
        self._what, self._unit, self._total = what, unit, total
        self._began = self._last = time.monotonic()
        self._done, self._note = 0, ""
        self._first: tuple[float, int] | None = None
        _say(f"{what}{f': {total:,} {unit}' if total else ''} ...")

    def update(self, n: int) -> None:
        self._done += n
        now, rate = time.monotonic(), 0.0
        if self._first is None:
            # The first item took longer: its program was compiled.
            self._first = (now, self._done)
        elif now > self._first[0]:
            rate = (self._done - self._first[1]) / (now - self._first[0])
        if now - self._last >= EVERY and self._done != self._total:
            self._last, seconds = now, now - self._began
            line = progress_line(self._what, self._done, self._total, self._unit, rate, seconds)
            _say(f"{line}; {self._note}" if self._note else line)

    def set_postfix_str(self, s: str) -> None:
        self._note = s

    def close(self) -> None:
        seconds = time.monotonic() - self._began
        if seconds >= SHORT:
            _say(f"{self._what}: {self._done:,} {self._unit} in {duration(seconds)}")


def _bar(what: str, unit: str, total: int | None) -> _Bar:
    if not sys.stderr.isatty():
        return _Lines(what, unit, total)
    return tqdm.tqdm(total=total, desc=what, unit=f" {unit}", dynamic_ncols=True, file=sys.stderr)


def say(text: str) -> None:
    """Says something beside progress, where that is shown."""
    if _State.shown:
        _say(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
