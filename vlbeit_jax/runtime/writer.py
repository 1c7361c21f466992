"""Where a run's figures go: JSON lines, TensorBoard, a text log and the terminal."""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tqdm

from vlbeit_jax.errors import Reported, StorageError
from vlbeit_jax.places import append, place, settle
from vlbeit_jax.progress import duration
from vlbeit_jax.redact import redacted
from vlbeit_jax.runtime import lines
from vlbeit_jax.runtime.ending import noting
from vlbeit_jax.runtime.metrics_file import append_metrics, drop_metrics_after
from vlbeit_jax.shapes import UInt8
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.unread import drop_unread_outputs

# tensorboardX imports PyTorch if it is installed, for features that are not used here. That costs
# seconds and memory, so the import is made to fail.
_torch = sys.modules.get("torch")
sys.modules["torch"] = None  # type: ignore[assignment]
try:
    import tensorboardX
    from tensorboardX import record_writer
finally:
    if _torch is None:
        del sys.modules["torch"]
    else:
        sys.modules["torch"] = _torch


class _EventFile:
    """A file of TensorBoard's events in a bucket: tensorboardX would write all of it each time."""

    def __init__(self, path: str):
        self._path = place(path)

    def write(self, content: bytes) -> None:
        append(self._path, content)

    def flush(self) -> None:
        """Nothing is to be done: what was appended is written soon."""

    def close(self) -> None:
        """As ``flush``."""


class _EventFiles:
    def open(self, path: str) -> _EventFile:
        return _EventFile(path)

    def directory_check(self, path: str) -> None:
        """A bucket has no folders to be made."""


record_writer.register_writer_factory("gs", _EventFiles())
TEXT_FILE, EVENTS, REFUSED_FILE = "log.txt", "tensorboard", "refused.jsonl"


@contextlib.contextmanager
def _perhaps_unread() -> Iterator[None]:
    """The run goes on if its terminal is gone or nobody reads its output; ``log.txt`` has it."""
    try:
        yield
    except OSError:
        if not drop_unread_outputs():
            raise


class Writer:
    """Writes figures and messages to the folder of a run, and shows them on the terminal.

    Nothing is opened before the first figure or picture, so a run that takes no step leaves
    ``metrics.jsonl`` and the TensorBoard events alone.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        start: int,
        steps: int,
        headlines: Sequence[Headline] = (),
        compile_seconds: Callable[[], float] = lambda: 0.0,
        *,
        enabled: bool = True,
    ):
        """Prepares to write.

        Args:
          folder: of the run.
          start: step at which this process starts. Figures of later steps come from a process
            that was stopped; they are dropped, because those steps are taken again.
          steps: at which the run ends.
          headlines: figures that lines show besides losses and accuracies.
          compile_seconds: total time spent on compilation so far, which says nothing of the time
            that is left.
          enabled: False on all processes but one; all methods then do nothing.
        """
        self._folder, self._start, self._steps = folder, start, steps
        self._headlines, self._compile_seconds = headlines, compile_seconds
        self._enabled = enabled
        self._events: tensorboardX.SummaryWriter | None = None
        self._began = time.monotonic()
        self._first: float | None = None  # When the first step was done, without compilation.
        self._legends: set[str] = set()
        self._bar = tqdm.tqdm(
            total=steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            disable=not (enabled and sys.stderr.isatty()),
            smoothing=0.1,
        )

    def progress(self, text: str) -> None:
        """Advances the progress bar by a step, with ``text`` beside it."""
        if self._first is None:
            self._first = self._without_compilation()
        with _perhaps_unread():
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def write(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        """Writes figures everywhere: all of them to files, the most important ones as a line.

        Args:
          step: number of steps taken.
          split: where the figures come from: "train", "validation".
          figures: values by name; any names are fine. ``term/kind`` groups kinds of one term.
        """
        if not self._enabled:
            return
        events = self._opened()
        seconds = round(time.monotonic() - self._began, 3)
        append_metrics(self._folder, {"step": step, "split": split, "seconds": seconds, **figures})
        # JSON says why a figure is missing; TensorBoard would warn of each.
        for name, value in figures.items():
            if math.isfinite(value):
                events.add_scalar(f"{split}/{name}", value, step)
        legend = lines.legend(figures, self._headlines, self._steps)
        if legend and legend not in self._legends:
            self._legends.add(legend)
            self.say(legend)
        left = self._time_left(step)
        self.say(lines.line(step, self._steps, split, figures, self._headlines, left))

    def picture(self, name: str, pixels: UInt8[np.ndarray, "height width 3"]) -> None:
        """Adds a picture to the TensorBoard events, at the step at which this process starts."""
        if self._enabled:
            self._opened().add_image(name, pixels, self._start, dataformats="HWC")

    def _opened(self) -> tensorboardX.SummaryWriter:
        if self._events is None:
            if told := drop_metrics_after(self._folder, self._start):
                self.say(told)
            self._events = tensorboardX.SummaryWriter(
                str(self._folder / EVENTS), purge_step=self._start + 1 if self._start else None
            )
        return self._events

    def say(self, text: str) -> None:
        """Adds a message, with the time, to ``log.txt`` and shows it above the progress bar."""
        self._log(text)
        if not self._enabled:
            return
        with _perhaps_unread():
            self._bar.write(redacted(text), file=sys.stderr)
            sys.stderr.flush()

    @contextlib.contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Adds an error that leaves its body to ``log.txt``; the command shows it.

        An end of the process by another thread is added as well.
        """
        try:
            with noting(lambda said, code: self._log(f"error: {said}")):
                yield
        except Exception as error:
            # The storage that fails may be that of the log.
            fails = (OSError, StorageError) if isinstance(error, StorageError) else ()
            with contextlib.suppress(*fails):
                self._log(f"error: {error}" if isinstance(error, Reported) else repr(error))
            raise

    def _log(self, text: str) -> None:
        if not self._enabled:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redacted(text)}\n"
        append(self._folder / TEXT_FILE, line.encode())

    def refused(
        self, step: int, what: str, records: Callable[[int], Mapping[str, Sequence[str]]]
    ) -> None:
        """Names the records of a step whose update was refused: a few here, all in a file.

        Args:
          step: that was refused.
          what: was not finite.
          records: from a step to the ids of its records, by stream.
        """
        if not self._enabled:
            return
        named = records(step)
        line = {"step": step, "not_finite": what, "records": named}
        text = json.dumps(line, ensure_ascii=False) + "\n"
        append(self._folder / REFUSED_FILE, text.encode())
        shown = "; ".join(f"{name}: {', '.join(ids[:3])}, ..." for name, ids in named.items())
        self.say(
            f"step {step}: its update was refused, because something was not finite: {what}; its "
            f"records ({REFUSED_FILE} has all): {shown}"
        )

    def close(self) -> None:
        """Ends the progress bar; all that was written is then in its files."""
        with _perhaps_unread():
            self._bar.close()
        if self._events is not None:
            self._events.close()
        settle()

    @contextlib.contextmanager
    def compiling(self, streams: Sequence[str]) -> Iterator[None]:
        """Says before its body that the step is compiled, and after it how long it took."""
        self.say(f"compiling the step of {', '.join(streams)} ...")
        began = time.monotonic()
        yield
        self.say(f"compiling ... {duration(time.monotonic() - began)}")

    def _without_compilation(self) -> float:
        return time.monotonic() - self._compile_seconds()

    def _time_left(self, step: int) -> str:
        if step == self._steps:
            return f"took {duration(time.monotonic() - self._began)}"
        # The first step also starts threads and fills caches.
        done = step - self._start - 1
        if done < 1 or self._first is None:
            return ""
        seconds = (self._without_compilation() - self._first) / done * (self._steps - step)
        return f"{duration(seconds)} left"
