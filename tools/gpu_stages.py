"""The stages of tools/gpu_check.py: each runs a few commands and yields rows of the table.

The most important stage comes first, because time may end before all stages have run.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from tools.gpu_runner import Check, Stop, failure

BASE, LARGE = "configs/pretrain_base.py", "configs/pretrain_large.py"
PEER_BATCH = {False: 64, True: 2}  # By whether it is a rehearsal; both sides must fit into memory.
NO_DROP_PATH = (
    "--config.task.model.drop_path=0.0"  # The two sides would draw different random numbers.
)
TESTS = [
    "tests/ops/test_cudnn_attention.py",
    "tests/models/test_parity.py",
    "tests/ops/test_losses.py",
]
# Each test compiles for seconds on a GPU, and the check has minutes.
WHICH = "cudnn or absolute or cross_entropy"


def core_tests(check: Check) -> Iterator[dict[str, Any]]:
    """Tests attention, parity and losses on the device, with float32 products in full precision."""
    command = ["pytest", "-n", "0", "-p", "no:cacheprovider", "-rs", "-k", WHICH, *TESTS]
    platform = "cpu" if check.rehearse else "cuda"
    code, text = check.run(
        "tests", command, VLBEIT_TEST_PLATFORM=platform, JAX_DEFAULT_MATMUL_PRECISION="highest"
    )
    summary = re.findall(r"(\d+) (passed|failed|skipped|error)", text)
    yield {
        "row": "core tests",
        "tests": {kind: int(count) for count, kind in summary},
        **failure(code, text),
    }


def base(check: Check) -> Iterator[dict[str, Any]]:
    """Base size at the largest batch that fits, all three streams in each step."""
    yield {"row": "base, largest batch", **check.largest("base", BASE)}


def peer(check: Check) -> Iterator[dict[str, Any]]:
    """The same step in PyTorch, in turn with ours."""
    found = check.benchmark(
        "peer", BASE, PEER_BATCH[check.rehearse], NO_DROP_PATH, module="tools.torch_peer"
    )
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
    options = [
        "--config.task.model.attention=einsum",
        "--config.task.tokenizer_model.attention=einsum",
        NO_DROP_PATH,
    ]
    yield {
        "row": "base, attention=einsum",
        **check.benchmark("einsum", BASE, PEER_BATCH[check.rehearse], *options),
    }


def large_images(check: Check) -> Iterator[dict[str, Any]]:
    """One layer of attention at 384 and 640 pixels: what ``auto`` chooses, beside einsum."""
    for tokens in (65,) if check.rehearse else (577, 1601):
        command = ["tools.attention_times", "2" if check.rehearse else "8", str(tokens)]
        code, text = check.run(f"attention_{tokens}", command)
        for line in text.splitlines():
            if line.startswith("{"):
                found = json.loads(line)
                yield {"row": f"attention of {tokens} tokens, {found['attention']}", **found}
        if code:
            yield {"row": f"attention of {tokens} tokens", **failure(code, text)}


def large(check: Check) -> Iterator[dict[str, Any]]:
    """Large size at the largest batch that fits."""
    yield {"row": "large, largest batch", **check.largest("large", LARGE)}


def cached(check: Check) -> Iterator[dict[str, Any]]:
    """Base size with visual tokens that are read instead of computed."""
    views = [
        "--config.task.visual_tokens=TOKENS",
        "--config.task.image.views=8",
        "--config.task.pair.views=8",
    ]
    yield {"row": "base, cached visual tokens", **check.largest("cached", BASE, *views)}


def _tokenizers_of_sample(out: pathlib.Path, steps: int) -> list[list[str]]:
    """Returns the commands that make what pretraining on the sample needs, in ``out``.

    Args:
      out: a folder.
      steps: of the visual tokenizer.
    """
    return [
        [
            "vlbeit_jax.text_tokenizer",
            "--data=sample:pairs",
            "--vocabulary=2000",
            "--max_megabytes=1",
            f"--out={out / 'text'}",
        ],
        [
            "vlbeit_jax.prepare",
            "--kind=tokens",
            "--input=sample:texts",
            f"--text_tokenizer={out / 'text'}",
            "--length=64",
            f"--out={out / 'tokens'}",
        ],
        [
            "vlbeit_jax.main",
            "--config=configs/sample_vqkd.py",
            f"--workdir={out / 'vqkd'}",
            f"--config.run.steps={steps}",
            "--config.optimizer.warmup_steps=1",
            "--config.run.evaluate_every=0",
        ],
    ]


def sample(check: Check) -> Iterator[dict[str, Any]]:
    """Trains on the sample for a minute: real data and tokenizers, evaluation, checkpoints."""
    out, seconds = check.out / "sample", 60
    train = [
        "vlbeit_jax.main",
        "--config=configs/sample.py",
        f"--workdir={out / 'pretrain'}",
        f"--config.task.text_tokenizer={out / 'text'}",
        f"--config.task.text.sources=('{out / 'tokens'}',)",
        f"--config.task.visual_tokenizer={out / 'vqkd'}",
        "--config.run.log_every=5",
    ]
    commands = _tokenizers_of_sample(out, steps=2 if check.rehearse else 200)
    for number, command in enumerate(commands):
        code, said = check.run(f"sample_{number}", command)
        if code:
            yield {"row": "sample", **failure(code, said)}
            return
    metrics = out / "pretrain" / "metrics.jsonl"
    # The first steps compile for about a minute, so the time counts from the first logged step.
    code, said = check.run("sample_train", train, Stop(metrics, seconds))
    lines = (
        [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    )
    lines = [line for line in lines if line["split"] == "train"]
    if not lines:
        yield {"row": "sample", **failure(code or 1, said)}
        return
    found = {
        name: lines[-1].get(name)  # There is no MFU of a card whose peak is not known.
        for name in ("step", "samples_per_second", "model_flops_per_second", "mfu", "data_wait")
    }
    losses = {
        name: [lines[0][name], lines[-1][name]] for name in lines[-1] if name.endswith("/loss")
    }
    yield {
        "row": f"sample, {seconds} s of training",
        **found,
        "losses": losses,
        "command": f"python -m {' '.join(train)}",
    }


STAGES: dict[str, Callable[[Check], Iterator[dict[str, Any]]]] = {
    stage.__name__: stage
    for stage in (
        core_tests,
        base,
        peer,
        attention,
        large,
        cached,
        sample,
        large_images,
    )
}
