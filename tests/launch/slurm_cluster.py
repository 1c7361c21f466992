"""A SLURM cluster of one node on the loopback, from an installed Slurm or from Debian's packages in a temporary folder."""

import contextlib
import os
import pathlib
import platform
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

# What Debian's Slurm needs beyond a base system. The daemons talk without munge here (auth/none).
PACKAGES = (
    "slurmctld",
    "slurmd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "libhwloc15",
    "libmunge2",
)
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
# A job that was requeued starts again after so many seconds; two minutes by default.
AuthInfo=cred_expire=5
{plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2,builtin_interval=2
ReturnToService=2
MpiDefault=none
KillWait=5
MailProg=/bin/true
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=ALL State=UP MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
"""
ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "DEADLINE",
    "BOOT_FAIL",
}


class Slurm:
    """The commands of a running cluster.

    Attributes:
      environment: in which sbatch and the others are found.
      folder: for output and logs.
    """

    def __init__(self, environment: dict[str, str], folder: pathlib.Path):
        self.environment, self.folder = environment, folder

    def run(
        self, *command: object, folder: pathlib.Path | None = None, **settings: str
    ) -> subprocess.CompletedProcess:
        words, environment = [str(word) for word in command], self.environment | settings
        return subprocess.run(
            words,
            env=environment,
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def submit(self, *command: object, folder: pathlib.Path | None = None, **settings: str) -> int:
        done = self.run(*command, folder=folder, **settings)
        assert done.returncode == 0, done.stderr
        (number,) = re.findall(r"Submitted batch job (\d+)", done.stdout)
        return int(number)

    def job(self, number: int) -> dict[str, str]:
        """What Slurm says of a job: JobState, Restarts, ExitCode and more."""
        done = self.run("scontrol", "show", "job", number)
        assert done.returncode == 0, done.stderr
        return dict(re.findall(r"(\w+)=(\S+)", done.stdout))

    def output(self, number: int) -> str:
        file = self.folder / f"slurm-{number}.out"
        return file.read_text() if file.is_file() else ""

    def ended(self, number: int, seconds: float) -> dict[str, str]:
        """What Slurm says of a job once it has ended."""
        deadline = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in ENDED:
            assert time.monotonic() < deadline, (
                f"{job['JobState']} after {seconds} s:\n{self.output(number)}"
            )
            time.sleep(0.5)
        return job


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Slurm]:
    """Starts controller and node, and ends them with all jobs. Skips the test where there is no Slurm to be had."""
    programs, environment, plugins = _installed() or _unpacked(folder / "packages")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    host = platform.node().split(".")[0]
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    user = pwd.getpwuid(os.getuid()).pw_name
    configuration.write_text(
        CONFIGURATION.format(folder=folder, host=host, user=user, plugins=plugins, **ports)
    )
    environment = os.environ | environment | {"SLURM_CONF": str(configuration)}
    slurm = Slurm(environment, folder)
    with contextlib.ExitStack() as stack:
        for name, *options in (
            ("slurmctld",),
            ("slurmd", "-N", "localhost", "-d", programs["slurmstepd"]),
        ):
            log = stack.enter_context((folder / f"{name}.out").open("w"))
            command = [programs[name], "-D", "-c", *options]
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(_end, daemon)
        stack.callback(lambda: slurm.run("scancel", "--state=RUNNING", f"--user={user}"))
        deadline = time.monotonic() + 30
        while "idle" not in (said := slurm.run("sinfo", "--noheader", "--format=%T").stdout):
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("slurm*.out"))
            assert time.monotonic() < deadline, (
                f"the node does not come up ({said.strip()}):\n{logs}"
            )
            time.sleep(0.2)
        yield slurm


def _installed() -> tuple[dict[str, str], dict[str, str], str] | None:
    places = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    programs = {
        name: shutil.which(name, path=places)
        for name in ("slurmctld", "slurmd", "slurmstepd", "sbatch", "srun")
    }
    if not all(programs.values()):
        return None
    return {name: str(place) for name, place in programs.items()}, {}, ""


def _unpacked(folder: pathlib.Path) -> tuple[dict[str, str], dict[str, str], str]:
    """Programs, environment and configuration of packages that are unpacked into a folder; nothing is installed."""
    for needed in ("apt-get", "dpkg"):
        if shutil.which(needed) is None:
            pytest.skip(f"no Slurm is installed, and {needed} is not there to fetch Debian's")
    folder.mkdir()
    fetched = subprocess.run(
        ["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True
    )
    if fetched.returncode:
        pytest.skip(
            f"no Slurm is installed, and apt-get download does not give Debian's: {fetched.stderr.strip().splitlines()[-1]}"
        )
    root = folder / "root"
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    plugins = next(root.rglob("auth_none.so")).parent
    sbin = root / "usr" / "sbin"
    programs = {
        name: str(next(sbin.glob(f"{name}*"))) for name in ("slurmctld", "slurmd", "slurmstepd")
    }
    environment = {
        "PATH": f"{root / 'usr' / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{plugins}:{plugins.parent}",
    }
    missing = [
        line.strip()
        for program in programs.values()
        for line in subprocess.run(
            ["ldd", program], env=os.environ | environment, capture_output=True, text=True
        ).stdout.splitlines()
        if "not found" in line
    ]
    if missing:
        pytest.skip(f"Debian's Slurm needs libraries that this machine lacks: {missing}")
    return programs, environment, f"PluginDir={plugins}"


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
