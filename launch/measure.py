"""Wall time and peak memory of the sample's stages, and its results in one file. Standard library only.

Usage: measure.py run STAGES.jsonl -- COMMAND...    runs the command, adds a line to the file
       measure.py results WORKDIR                   writes WORKDIR/results.json
"""

import json
import pathlib
import resource
import subprocess
import sys
import time


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
    stages = [json.loads(line) for line in (workdir / "stages.jsonl").read_text().splitlines()]
    codebook = [json.loads(line) for line in (workdir / "vqkd" / "metrics.jsonl").read_text().splitlines()]
    found = json.loads((workdir / "evaluation.json").read_text())
    found["codes_used"] = [line for line in codebook if line["split"] == "validation"][-1]["codes_used"]
    found["codes"] = json.loads((workdir / "vqkd" / "config.json").read_text())["visual_tokenizer"]["codes"]
    found["wall_seconds"] = round(sum(stage["wall_seconds"] for stage in stages), 1)
    found["peak_memory_bytes"] = max(stage["peak_memory_bytes"] for stage in stages)
    (workdir / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    minutes, memory = found["wall_seconds"] / 60, found["peak_memory_bytes"] / 2**30
    print(f"\n{minutes:.1f} minutes, {memory:.1f} GiB at most, {found['codes_used']} of {found['codes']} visual tokens in use")
    print(f"report:  {workdir / 'report.html'}\nresults: {workdir / 'results.json'}")


if __name__ == "__main__":
    if len(sys.argv) > 4 and sys.argv[1] == "run" and sys.argv[3] == "--":
        sys.exit(run(pathlib.Path(sys.argv[2]), sys.argv[4:]))
    if len(sys.argv) == 3 and sys.argv[1] == "results":
        results(pathlib.Path(sys.argv[2]))
        sys.exit(0)
    print(__doc__, file=sys.stderr)
    sys.exit(2)
