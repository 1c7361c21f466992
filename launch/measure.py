"""The sample's stages: what each took, what its output was made from, and the results in one file. Standard library only.

Usage: measure.py run WORKDIR OUTPUT INPUTS -- COMMAND...
           Runs the command and adds a line to WORKDIR/stages.jsonl. OUTPUT and INPUTS (separated by spaces) lie in WORKDIR, or are
           sample:NAME, data in the package. Where OUTPUT was made by the same command from inputs with the same content, nothing
           is run; without OUTPUT the command always runs.
       measure.py results WORKDIR
           Writes WORKDIR/results.json.
"""

import hashlib
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time

SAMPLE = pathlib.Path(__file__).resolve().parent.parent / "vlbeit_jax" / "sample_data"
STAGES = "stages.jsonl"
ORIGINS = (
    "origins.json"  # Of each output: a digest of command and inputs, and whether it was finished.
)


def stage(workdir: pathlib.Path, output: str, inputs: list[str], command: list[str]) -> int:
    """Runs a command unless its output is there and was made from the same; returns the command's exit code.

    An output that was made from something else, or not to the end, is removed and made anew. A folder that this program has
    not made is left alone: exit code 2.
    """
    if not output:
        return run(workdir / STAGES, command)
    origins, place = _origins(workdir), workdir / output
    origin = {"made_from": _digest(workdir, inputs, command), "finished": True}
    if place.exists():
        if origins.get(output) == origin:
            print(f"finished already: {place}")
            return 0
        if output not in origins and place.is_dir():
            said = f"error: {place} is there, and {workdir / ORIGINS} does not say what it was made from; remove it, or name another folder"
            print(said, file=sys.stderr)
            return 2
        print(f"made from something else, or not to the end; again: {place}")
        _write(
            workdir, origins | {output: origin | {"finished": False}}
        )  # First: what is half removed may be removed again.
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    _write(workdir, origins | {output: origin | {"finished": False}})
    code = run(workdir / STAGES, command)
    if code == 0:
        _write(workdir, _origins(workdir) | {output: origin})
    return code


def run(stages: pathlib.Path, command: list[str]) -> int:
    """Runs a command and notes what it took, also when it fails; returns its exit code."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # The command got the signal as well: let it end by itself.
            continue
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
    """Joins the evaluation, the codebook's use on held-back images, and the time and memory of all stages."""
    stages = [json.loads(line) for line in (workdir / STAGES).read_text().splitlines()]
    codebook = [
        json.loads(line) for line in (workdir / "vqkd" / "metrics.jsonl").read_text().splitlines()
    ]
    found = json.loads((workdir / "evaluation.json").read_text())
    found["codes_used"] = [line for line in codebook if line["split"] == "validation"][-1][
        "codes_used"
    ]
    found["codes"] = json.loads((workdir / "vqkd" / "config.json").read_text())["visual_tokenizer"][
        "codes"
    ]
    found["wall_seconds"] = round(sum(stage["wall_seconds"] for stage in stages), 1)
    found["peak_memory_bytes"] = max(stage["peak_memory_bytes"] for stage in stages)
    (workdir / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    minutes, memory = found["wall_seconds"] / 60, found["peak_memory_bytes"] / 2**30
    print(
        f"\n{minutes:.1f} minutes, {memory:.1f} GiB at most, {found['codes_used']} of {found['codes']} visual tokens in use"
    )
    print(f"report:  {workdir / 'report.html'}\nresults: {workdir / 'results.json'}")


def _digest(workdir: pathlib.Path, inputs: list[str], command: list[str]) -> str:
    """SHA-256 of the command and of every file of the inputs, with its name."""
    digest = hashlib.sha256(
        json.dumps([word.replace(str(workdir), ".") for word in command[1:]]).encode()
    )  # It may be moved.
    for name in inputs:
        place = (
            SAMPLE / name.removeprefix("sample:") if name.startswith("sample:") else workdir / name
        )
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
