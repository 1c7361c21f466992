"""Where a run's figures go: JSON lines, TensorBoard, a text log and the terminal."""

import pathlib
import sys
import time
from collections.abc import Mapping

import tqdm

from vlbeit_jax.runtime.run_folder import append_metrics, drop_metrics_after

# tensorboardX imports PyTorch if it is installed, for features that are not used here. That costs
# seconds and memory, so the import is made to fail.
_torch = sys.modules.get("torch")
sys.modules["torch"] = None  # type: ignore[assignment]
try:
    import tensorboardX
finally:
    if _torch is None:
        del sys.modules["torch"]
    else:
        sys.modules["torch"] = _torch

TEXT_FILE, EVENTS = "log.txt", "tensorboard"
# Figures that a text line does not repeat for every term: how many examples were counted.
NOT_IN_TEXT = {"count"}


class Writer:
    """Writes figures and messages to the folder of a run, and shows them on the terminal.

    Nothing is opened before the first line of figures, so a run that takes no step leaves
    ``metrics.jsonl`` and the TensorBoard events alone.
    """

    def __init__(self, folder: pathlib.Path, start: int, steps: int, *, enabled: bool = True):
        """Prepares to write.

        Args:
          folder: of the run.
          start: step at which this process starts. Figures of later steps come from a process
            that was stopped; they are dropped, because those steps are taken again.
          steps: at which the run ends.
          enabled: False on all processes but one; all methods then do nothing.
        """
        self._folder, self._start, self._steps = folder, start, steps
        self._enabled = enabled
        self._events: tensorboardX.SummaryWriter | None = None
        self._began = time.monotonic()
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
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def write(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        """Writes a line of figures everywhere.

        Args:
          step: number of steps taken.
          split: where the figures come from: "train", "validation".
          figures: values by name; any names are fine. ``term/kind`` groups kinds of one term.
        """
        if not self._enabled:
            return
        if self._events is None:
            drop_metrics_after(self._folder, self._start)
            self._events = tensorboardX.SummaryWriter(
                str(self._folder / EVENTS), purge_step=self._start + 1 if self._start else None
            )
        seconds = round(time.monotonic() - self._began, 3)
        append_metrics(self._folder, {"step": step, "split": split, "seconds": seconds, **figures})
        for name, value in figures.items():
            self._events.add_scalar(f"{split}/{name}", value, step)
        self.say(f"step {step}/{self._steps} {split}: {as_text(figures)}{self._time_left(step)}")

    def say(self, text: str) -> None:
        """Adds a message, with the time, to ``log.txt`` and shows it above the progress bar."""
        if not self._enabled:
            return
        with (self._folder / TEXT_FILE).open("a") as out:
            out.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._bar.write(text, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Ends the progress bar and flushes the events."""
        self._bar.close()
        if self._events is not None:
            self._events.close()

    def _time_left(self, step: int) -> str:
        done = step - self._start
        if not done:
            return ""
        left = (time.monotonic() - self._began) / done * (self._steps - step)
        return f" | {int(left // 60)}m{int(left % 60):02d}s left"


def as_text(figures: Mapping[str, float]) -> str:
    """Returns figures as one line: term by term in alphabetical order, then the rest."""
    terms: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        term, _, kind = name.partition("/")
        if kind:
            terms.setdefault(term, {})[kind] = value
    parts = [f"{term} {_term_as_text(kinds)}" for term, kinds in sorted(terms.items())]
    parts += [f"{name} {value:.4g}" for name, value in figures.items() if "/" not in name]
    return " | ".join(parts)


def _term_as_text(kinds: Mapping[str, float]) -> str:
    """Loss and accuracy first, with the baselines of the accuracy in brackets."""
    rest = {name: value for name, value in kinds.items() if name not in NOT_IN_TEXT}
    words = []
    if "loss" in rest:
        words.append(f"loss {rest.pop('loss'):.3f}")
    if "accuracy" in rest:
        words.append(f"acc {100 * rest.pop('accuracy'):.1f}%")
        digits = {"unigram": 1, "chance": 2}
        baselines = [
            f"{name} {100 * rest.pop(name):.{places}f}%"
            for name, places in digits.items()
            if name in rest
        ]
        if baselines:
            words.append(f"({', '.join(baselines)})")
    words += [f"{name} {value:.4g}" for name, value in rest.items()]
    return " ".join(words)
