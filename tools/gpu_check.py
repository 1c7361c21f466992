"""Runs the project's own commands on one GPU and makes a table of what they measured.

tools/gpu_check.sh starts it. It needs only the standard library, so that a command that cannot start is a
row of the table and does not end the check. Each stage runs a few commands. The most important stage runs
first, because time may end before all stages have run.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tools import gpu_table

BASE, LARGE = "configs/pretrain_base.py", "configs/pretrain_large.py"
JOINT = "--config.run.schedule=image+text+pair"
STREAMS = ("image", "text", "pair")
PEER_BATCH = {False: 64, True: 2}  # Key: whether it is a rehearsal. The memory of both sides has to fit.
NO_DROP_PATH = "--config.model.drop_path=0.0"  # The two sides would draw different random numbers.
# A rehearsal runs the same code at these sizes, in seconds on a CPU.
TINY = [
    "--config.model.depth=1", "--config.model.fused_layers=1", "--config.model.vocabulary=1000", "--config.model.width=64",
    "--config.model.heads=1", "--config.model.ffn_width=128", "--config.visual_tokenizer.encoder_depth=1",
    "--config.visual_tokenizer.width=64", "--config.visual_tokenizer.heads=1", "--config.model.codes=256",
    "--config.visual_tokenizer.codes=256",
]  # fmt: skip
TESTS = ["tests/ops/test_cudnn_attention.py", "tests/models/test_parity.py", "tests/ops/test_losses.py"]
WHICH = "cudnn or absolute or cross_entropy"  # Each test compiles for seconds on a GPU, and the check has minutes.
CURRENT: list[subprocess.Popen] = []  # The command that runs now; it ends with this program.


@dataclasses.dataclass
class Check:
    """What all stages share.

    Attributes:
      out: folder of the results.
      deadline: when the check ends, by ``time.monotonic``.
      rehearse: whether to run on the CPU with tiny sizes.
      memory: of the device, in GiB.
    """

    out: pathlib.Path
    deadline: float
    rehearse: bool
    memory: float

    def left(self) -> float:
        """Seconds until the end."""
        return self.deadline - time.monotonic()

    def run(self, name: str, command: Sequence[str], interrupt_after: float = 0, **environment: str) -> tuple[int, str]:
        """Runs ``python -m COMMAND`` with its output in NAME.log.

        Args:
          name: of the log.
          command: module and arguments.
          interrupt_after: seconds until the command gets a Ctrl-C; 0: it runs to its end.
          **environment: variables that are added to those of this process.

        Returns:
          The exit code (124: time ended) and the output.
        """
        log = self.out / f"{name}.log"
        variables = {**os.environ, **environment, "XDG_CACHE_HOME": str(self.out.resolve() / "cache")}
        if self.rehearse:
            variables["JAX_PLATFORMS"] = "cpu"
        with log.open("w") as file:
            file.write(f"$ python -m {' '.join(command)}\n")
            file.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=file, stderr=subprocess.STDOUT, env=variables, start_new_session=True
            )
            CURRENT[:] = [process]
            try:
                process.wait(min(interrupt_after or self.left(), max(self.left(), 0)))
            except subprocess.TimeoutExpired:
                if interrupt_after and self.left() > 0:
                    os.kill(process.pid, signal.SIGINT)
                    _wait(process, min(30, max(self.left(), 0)))
            timed_out = process.poll() is None
            _end(process)
        return 124 if timed_out else process.returncode, log.read_text()

    def benchmark(self, name: str, config: str, batch: int, *more: str) -> dict[str, Any]:
        """Returns what ``vlbeit_jax.benchmark`` measured, with ``error`` if it failed."""
        result = self.out / f"{name}.json"
        result.unlink(missing_ok=True)  # It may be of a larger batch that did not fit.
        command = ["vlbeit_jax.benchmark", f"--config={config}", JOINT, "--config.model.matmul=bfloat16"]
        command += ["--config.visual_tokenizer.matmul=bfloat16", "--config.mesh.fsdp=1"]
        command += [f"--config.data.{stream}.batch_size={batch}" for stream in STREAMS]
        command += [*(TINY if self.rehearse else []), f"--steps={2 if self.rehearse else 10}", "--warmup=2", f"--json={result}", *more]
        code, text = self.run(name, command)
        found = json.loads(result.read_text()) if result.is_file() else {}
        return {**found, "batch": batch, "command": f"python -m {' '.join(command)}", **_failure(code, text)}

    def largest(self, name: str, config: str, *more: str) -> dict[str, Any]:
        """Runs the benchmark at the largest batch that fits: starts with the formula's and halves it until it fits."""
        batch = 2
        if not self.rehearse:
            code, text = self.run(f"{name}_batch", ["tools.largest_batch", config, str(self.memory)], JAX_PLATFORMS="cpu")
            if code:
                return _failure(code, text)
            batch = int(text.split()[-1])
        while True:
            found = self.benchmark(name, config, batch, *more)
            if batch == 1 or "RESOURCE_EXHAUSTED" not in found.get("error", ""):
                return found
            batch //= 2


def _wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return  # ``_end`` follows.


def _end(process: subprocess.Popen) -> None:
    """Ends a command and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def _failure(code: int, text: str) -> dict[str, Any]:
    if code == 0:
        return {}
    if code == 124:
        return {"error": "time ended"}
    lines = [line for line in text.splitlines() if re.search(r"RESOURCE_EXHAUSTED|Error\b|error:|out of memory", line)]
    return {"error": f"exit code {code}: {(lines or text.splitlines()[-1:] or [''])[-1][:300]}"}


def core_tests(check: Check) -> Iterator[dict[str, Any]]:
    """Tests attention, parity and losses on the device, with float32 products in full precision."""
    command = ["pytest", "-n", "0", "-p", "no:cacheprovider", "-rs", "-k", WHICH, *TESTS]
    platform = "cpu" if check.rehearse else "cuda"
    code, text = check.run("tests", command, VLBEIT_TEST_PLATFORM=platform, JAX_DEFAULT_MATMUL_PRECISION="highest")
    summary = re.findall(r"(\d+) (passed|failed|skipped|error)", text)
    yield {"row": "core tests", "tests": {kind: int(count) for count, kind in summary}, **_failure(code, text)}


def base(check: Check) -> Iterator[dict[str, Any]]:
    """Base size at the largest batch that fits, all three streams in each step."""
    yield {"row": "base, largest batch", **check.largest("base", BASE)}


def peer(check: Check) -> Iterator[dict[str, Any]]:
    """The same step in PyTorch, in turn with ours."""
    found = check.benchmark("peer", BASE, PEER_BATCH[check.rehearse], "--peer=torch", NO_DROP_PATH)
    failed = {name: found[name] for name in ("error",) if name in found}
    shared = {name: found[name] for name in ("batch", "command")} | failed
    if "jax" not in found:
        yield {"row": "base beside PyTorch", **shared}
        return
    ratio = {name: found[name] for name in ("times_as_fast", "first_step", "agrees", "peer")}
    yield {"row": "base beside PyTorch: ours", **shared, **found["jax"]}
    yield {"row": "base beside PyTorch: PyTorch", **shared, **found["torch"], **ratio}


def attention(check: Check) -> Iterator[dict[str, Any]]:
    """Our step of the stage ``peer``, with XLA's attention instead of cuDNN's."""
    options = ["--config.model.attention=einsum", "--config.visual_tokenizer.attention=einsum", NO_DROP_PATH]
    yield {"row": "base, attention=einsum", **check.benchmark("einsum", BASE, PEER_BATCH[check.rehearse], *options)}


def large(check: Check) -> Iterator[dict[str, Any]]:
    """Large size at the largest batch that fits."""
    yield {"row": "large, largest batch", **check.largest("large", LARGE)}


def cached(check: Check) -> Iterator[dict[str, Any]]:
    """Base size with visual tokens that are read instead of computed."""
    views = ["--config.data.visual_tokens=TOKENS", "--config.data.image.views=8", "--config.data.pair.views=8"]
    yield {"row": "base, cached visual tokens", **check.largest("cached", BASE, *views)}


def sample(check: Check) -> Iterator[dict[str, Any]]:
    """The sample's recipe for one minute: real data, a real visual tokenizer, evaluation and checkpoints."""
    out, seconds = check.out / "sample", 10 if check.rehearse else 60
    steps = "2" if check.rehearse else "200"
    text, tokens = f"--config.data.text_tokenizer={out / 'text'}", f"--config.data.text.sources=('{out / 'tokens'}',)"
    before = [
        ["vlbeit_jax.text_tokenizer", "--data=sample:pairs", "--vocabulary=2000", "--max_megabytes=1", f"--out={out / 'text'}"],
        ["vlbeit_jax.prepare", "--kind=tokens", "--input=sample:texts", f"--text_tokenizer={out / 'text'}", "--length=64",
         f"--out={out / 'tokens'}"],
        ["vlbeit_jax.main", "--config=configs/sample_vqkd.py", f"--workdir={out / 'vqkd'}", f"--config.run.steps={steps}",
         "--config.optimizer.warmup_steps=1", "--config.run.evaluate_every=0"],
    ]  # fmt: skip
    train = ["vlbeit_jax.main", "--config=configs/sample.py", f"--workdir={out / 'pretrain'}", text, tokens]
    train += [f"--config.data.visual_tokenizer={out / 'vqkd'}", "--config.run.log_every=5"]
    for number, command in enumerate(before):
        code, said = check.run(f"sample_{number}", command)
        if code:
            yield {"row": "sample", **_failure(code, said)}
            return
    code, said = check.run("sample_train", train, interrupt_after=seconds)
    metrics = out / "pretrain" / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    lines = [line for line in lines if line["split"] == "train"]
    if not lines:
        yield {"row": "sample", **_failure(code or 1, said)}
        return
    found = {name: lines[-1][name] for name in ("step", "samples_per_second", "model_flops_per_second", "mfu", "data_wait")}
    losses = {name: [lines[0][name], lines[-1][name]] for name in lines[-1] if name.endswith("/loss")}
    yield {"row": f"sample, {seconds} s of training", **found, "losses": losses, "command": f"python -m {' '.join(train)}"}


STAGES: dict[str, Callable[[Check], Iterator[dict[str, Any]]]] = {
    stage.__name__: stage for stage in (core_tests, base, peer, attention, large, cached, sample)
}


def main() -> int:
    """Runs the stages; returns 0 if all succeeded."""
    parser = argparse.ArgumentParser(prog="tools/gpu_check.sh", description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="new folder for the results")
    parser.add_argument("--minutes", type=float, default=8, help="minutes after which the check ends")
    parser.add_argument("--only", default=",".join(STAGES), help=f"stages to run, in this order; default: {','.join(STAGES)}")
    parser.add_argument("--rehearse", action="store_true", help="run the same commands on the CPU, with tiny sizes")
    given = parser.parse_args()
    unknown = [name for name in given.only.split(",") if name not in STAGES]
    if unknown:
        parser.error(f"--only: no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    card = gpu_table.card()
    if not card and not given.rehearse:
        parser.error("nvidia-smi shows no GPU here; --rehearse runs the same commands on the CPU")
    try:
        given.out.mkdir(parents=True)
    except OSError as error:
        parser.error(f"{given.out}: {error.strerror}; name a new folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    check = Check(given.out, time.monotonic() + 60 * given.minutes, given.rehearse, card.get("memory_gib", 8.0))
    head = {"date": datetime.date.today().isoformat(), **card, **gpu_table.versions(), "rehearsal": given.rehearse}
    rows: list[dict[str, Any]] = []
    try:
        for name in given.only.split(","):
            for row in _timed(check, name):
                rows.append(row)
                gpu_table.write(given.out, head, rows)
                print(gpu_table.line(row), flush=True)
    finally:
        for process in CURRENT:
            _end(process)
    return 1 if any("error" in row for row in rows) else 0


def _timed(check: Check, name: str) -> Iterator[dict[str, Any]]:
    if check.left() < 10:
        yield {"row": name.replace("_", " "), "error": "not run: time ended", "seconds": 0}
        return
    began = time.monotonic()
    for row in STAGES[name](check):
        yield {**row, "seconds": round(time.monotonic() - began)}
        began = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
