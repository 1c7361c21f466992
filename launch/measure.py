"""Runs the stages of the sample, records their time and memory, and joins the results in one file.

It uses the standard library only.

Usage: measure.py run WORKDIR OUTPUT INPUTS -- COMMAND...
           Runs the command and adds a line to WORKDIR/stages.jsonl. OUTPUT and INPUTS (separated
           by spaces) are in WORKDIR; an input may also be sample:NAME, data in the package. The
           command does not run if the same command has made OUTPUT from inputs with the same
           content. If OUTPUT is empty, the command always runs.
       measure.py results WORKDIR
           Writes WORKDIR/results.json.
"""

import hashlib
import json
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

SAMPLE = pathlib.Path(__file__).resolve().parent.parent / "vlbeit_jax" / "sample_data"
STAGES = "stages.jsonl"
# By output: a digest of the command and its inputs, and whether the output is complete.
ORIGINS = "origins.json"


def stage(workdir: pathlib.Path, output: str, inputs: list[str], command: list[str]) -> int:
    """Runs a command unless its output is up to date; returns the command's exit code.

    An output that is incomplete, or was made from something else, is removed and made again. A
    folder that this program has not made is left alone, and the exit code is 2.
    """
    if not output:
        return run(workdir / STAGES, command)
    origins, place = _origins(workdir), workdir / output
    origin = {"made_from": _digest(workdir, inputs, command), "finished": True}
    if place.exists():
        if origins.get(output) == origin:
            print(f"already finished: {place}")
            return 0
        if output not in origins and place.is_dir():
            print(
                f"error: {place} exists, but {workdir / ORIGINS} does not say what it was made "
                "from; remove it, or choose another folder",
                file=sys.stderr,
            )
            return 2
        print(f"incomplete, or made from something else, so it is made again: {place}")
        # Before the removal, so that a folder that is half removed may be removed by the next call.
        _write(workdir, origins | {output: origin | {"finished": False}})
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    _write(workdir, origins | {output: origin | {"finished": False}})
    code = run(workdir / STAGES, command)
    if code == 0:
        _write(workdir, _origins(workdir) | {output: origin})
    return code


def run(stages: pathlib.Path, command: list[str]) -> int:
    """Runs a command and records time and memory, even if it fails; returns its exit code."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    # A run saves its step after any of these. Ctrl-C has reached it by itself.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: process.send_signal(number))
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            continue  # Wait until the command has ended by itself.
    line = {
        "command": command[1:],
        "exit_code": code,
        "wall_seconds": round(time.monotonic() - began, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }
    with stages.open("a") as out:
        out.write(json.dumps(line) + "\n")
    return 128 - code if code < 0 else code


def results(workdir: pathlib.Path) -> None:
    """Joins evaluation, use of the codebook on held-out images, and time and memory of stages."""
    stages = _lines(workdir / STAGES)
    tokenizer = workdir / "vqkd"
    metrics = _lines(tokenizer / "metrics.jsonl")
    config = json.loads((tokenizer / "config.json").read_text())
    found = json.loads((workdir / "evaluation.json").read_text())
    validation = [line for line in metrics if line["split"] == "validation"]
    found["codes_used"] = validation[-1]["codes_used"]
    found["codes"] = config["task"]["model"]["codes"]
    found["wall_seconds"] = round(sum(stage["wall_seconds"] for stage in stages), 1)
    found["peak_memory_bytes"] = max(stage["peak_memory_bytes"] for stage in stages)
    (workdir / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    minutes, memory = found["wall_seconds"] / 60, found["peak_memory_bytes"] / 2**30
    print(
        f"\n{minutes:.1f} minutes, {memory:.1f} GiB at most, {found['codes_used']} of "
        f"{found['codes']} visual tokens in use"
    )
    print(f"report:  {workdir / 'report.html'}\nresults: {workdir / 'results.json'}")


def _lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _digest(workdir: pathlib.Path, inputs: list[str], command: list[str]) -> str:
    """Returns a SHA-256 hash of the command, and of name and content of every input file."""
    words = [word.replace(str(workdir), ".") for word in command[1:]]  # WORKDIR may be moved.
    digest = hashlib.sha256(json.dumps(words).encode())
    for name in inputs:
        in_package = name.startswith("sample:")
        place = SAMPLE / name.removeprefix("sample:") if in_package else workdir / name
        for path in sorted(path for path in (place, *place.rglob("*")) if path.is_file()):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(json.dumps([name, str(path.relative_to(place)), content]).encode())
    return digest.hexdigest()


def _origins(workdir: pathlib.Path) -> dict[str, dict]:
    file = workdir / ORIGINS
    return json.loads(file.read_text()) if file.is_file() else {}


def _write(workdir: pathlib.Path, origins: dict[str, dict]) -> None:
    new = workdir / f"{ORIGINS}.new"
    new.write_text(json.dumps(origins, indent=1) + "\n")
    new.replace(workdir / ORIGINS)


if __name__ == "__main__":
    if len(sys.argv) > 6 and sys.argv[1] == "run" and sys.argv[5] == "--":
        sys.exit(stage(pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4].split(), sys.argv[6:]))
    if len(sys.argv) == 3 and sys.argv[1] == "results":
        results(pathlib.Path(sys.argv[2]))
        sys.exit(0)
    print(__doc__, file=sys.stderr)
    sys.exit(2)
