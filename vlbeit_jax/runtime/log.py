"""What a run says: JSON lines and TensorBoard events always, a progress bar on a terminal, plain lines elsewhere."""

import json
import pathlib
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import tqdm

from vlbeit_jax.training.run_folder import METRICS_FILE

_torch = sys.modules.get("torch")
sys.modules["torch"] = None  # type: ignore[assignment] - tensorboardX would load PyTorch, if it is there, and not use it here.
try:
    import tensorboardX
finally:
    if _torch is None:
        del sys.modules["torch"]
    else:
        sys.modules["torch"] = _torch

LOG_FILE, EVENTS = "log.txt", "tensorboard"


class Log:
    """Averages what steps report between two lines, and writes each line everywhere; of several processes the first one writes."""

    def __init__(
        self,
        folder: pathlib.Path,
        start: int,
        steps: int,
        chance: Mapping[str, float],
        *,
        writes: bool = True,
    ):
        """Lines of an earlier start that lie at or beyond ``start`` are dropped: those steps will be taken again."""
        self._path, self._text, self._chance, self._steps = (
            folder / METRICS_FILE,
            folder / LOG_FILE,
            chance,
            steps,
        )
        self._events = None
        if writes:
            kept = [line for line in read_metrics(folder) if line["step"] <= start]
            rewritten = self._path.with_suffix(".tmp")
            rewritten.write_text("".join(json.dumps(line) + "\n" for line in kept))
            rewritten.replace(self._path)
            self._events = tensorboardX.SummaryWriter(
                str(folder / EVENTS), purge_step=start + 1 if start else None
            )
        hidden = not (writes and sys.stderr.isatty())
        self._bar = tqdm.tqdm(
            total=steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            disable=hidden,
            smoothing=0.1,
        )
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._began = time.monotonic()
        self._start = start

    def add(self, metrics: Mapping[str, Any]) -> None:
        """One step's figures."""
        for name, value in metrics.items():
            self._sums[name] += float(value)
            self._counts[name] += 1
        losses = {
            name.removesuffix("/loss"): float(value)
            for name, value in metrics.items()
            if name.endswith("/loss")
        }
        self._bar.set_postfix_str(
            " ".join(f"{name} {value:.3f}" for name, value in losses.items()), refresh=False
        )
        self._bar.update()

    def write_training(self, step: int, rates: Mapping[str, float]) -> None:
        """Writes the means since the last line, with chance beside each accuracy, and rates and shares of time."""
        line = {name: self._sums[name] / self._counts[name] for name in self._sums}
        self._sums.clear()
        self._counts.clear()
        self._write(step, "train", line | dict(rates))

    def write_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Writes figures on held-back data."""
        self._write(step, "validation", dict(figures))

    def say(self, text: str) -> None:
        """A line for people: in ``log.txt`` with the time, and on the terminal above the progress bar."""
        if self._events is None:
            return
        with self._text.open("a") as out:
            out.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._bar.write(text, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Ends the bar and flushes the files."""
        self._bar.close()
        if self._events is not None:
            self._events.close()

    def _write(self, step: int, split: str, line: dict[str, float]) -> None:
        if self._events is None:
            return
        for name in [name for name in line if name.endswith("/accuracy")]:
            term = name.removesuffix("/accuracy")
            line[f"{term}/chance"] = self._chance[term]
        record = {
            "step": step,
            "split": split,
            "seconds": round(time.monotonic() - self._began, 3),
            **line,
        }
        with self._path.open("a") as out:
            out.write(json.dumps(record) + "\n")
        for name, value in line.items():
            self._events.add_scalar(f"{split}/{name}", value, step)
        self.say(f"step {step}/{self._steps} {split}: {readable(line)}{self._time_left(step)}")

    def _time_left(self, step: int) -> str:
        done = step - self._start
        if not done:
            return ""
        left = (time.monotonic() - self._began) / done * (self._steps - step)
        return f" | {int(left // 60)}m{int(left % 60):02d}s left"


def readable(line: Mapping[str, float]) -> str:
    """Figures in one line: each term's loss and accuracy with its baselines, then the rest."""
    parts, terms = [], sorted({name.split("/")[0] for name in line if "/" in name})
    for term in terms:
        text = f"{term} loss {line[f'{term}/loss']:.3f}"
        if f"{term}/accuracy" in line:
            accuracy, unigram, chance = (
                100 * line[f"{term}/{kind}"] for kind in ("accuracy", "unigram", "chance")
            )
            text += f" acc {accuracy:.1f}% (unigram {unigram:.1f}%, chance {chance:.2f}%)"
        parts.append(text)
    parts += [f"{name} {value:.4g}" for name, value in line.items() if "/" not in name]
    return " | ".join(parts)


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``; a last line that a kill cut off is left out."""
    if not (folder / METRICS_FILE).is_file():
        return []
    *lines, last = (folder / METRICS_FILE).read_text().split("\n")
    assert all(lines), "blank line in the metrics"
    return [json.loads(line) for line in lines]
