"""A real Slurm cluster on one machine, started and stopped by process id, with stand-in GPUs.

A node is a daemon with a name and a port of its own, so there may be several.

The GPUs are character devices that Slurm hands out like real ones: a job that asks for a GPU is
queued, placed and given CUDA_VISIBLE_DEVICES as on a cluster; what runs there finds no CUDA and
computes on the CPU. A job whose processes hold more memory than it asked for is killed, as where
control groups confine it. While the file ``hold`` lies in the cluster's folder, jobs start, occupy
what they asked for, and wait before they do anything. One test has the cluster at a time.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ["slurm-wlm", "munge"]
CONFIGURATION = Path("/etc/slurm")  # jobs do not inherit SLURM_CONF
PIDS = Path("/run/threedrs-slurm-test")  # outlives a test's own folder
DAEMONS = ("munged", "slurmctld", "slurmd")
GPUS = 2  # a node
CPUS = 8  # a node, whatever the machine has: GPUs and memory decide what runs at a time
PORT = 17010  # of the first node
FAKE_GPU_MAJOR = 1  # with minor 3: the null device


HOLD = """#!/bin/sh
while [ -e "$(dirname "$0")/hold" ]; do sleep 0.1; done
"""


class SlurmUnavailable(Exception):
    """The cluster cannot be had on this machine; the text says why."""


def install() -> None:
    """Install Slurm where this user may."""
    if all(shutil.which(daemon) for daemon in DAEMONS):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SlurmUnavailable(f"needs root and apt-get to install {' '.join(PACKAGES)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        done = subprocess.run(
            ["apt-get", *command], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SlurmUnavailable(f"apt-get {command[0]} failed: {done.stderr.strip()[-200:]}")


def _configure(folder: Path, nodes: list[str]) -> None:
    host = socket.gethostname().split(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    gpus = []
    for node in nodes:
        for index in range(GPUS):
            device = folder / f"{node}-gpu{index}"
            os.mknod(device, 0o666 | 0o020000, os.makedev(FAKE_GPU_MAJOR, 3))
        gpus.append(f"NodeName={node} Name=gpu File={folder}/{node}-gpu[0-{GPUS - 1}]\n")
    lines = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={PORT + number} "
        f"CPUs={CPUS} RealMemory={memory} Gres=gpu:{GPUS}\n"
        for number, node in enumerate(nodes)
    ]
    prolog = folder / "hold.sh"
    prolog.write_text(HOLD)
    prolog.chmod(0o755)
    settings = f"""
ClusterName=threedrs-test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={prolog}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
KillWait=5
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
MinJobAge=600
GresTypes=gpu
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={PIDS}/slurmctld.pid
SlurmdPidFile={PIDS}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldTimeout=30
SlurmdTimeout=60
SchedulerParameters=sched_interval=2
{"".join(lines)}
PartitionName=main Nodes={",".join(nodes)} Default=YES MaxTime=INFINITE State=UP
"""
    CONFIGURATION.mkdir(parents=True, exist_ok=True)
    (CONFIGURATION / "slurm.conf").write_text(settings.lstrip())
    (CONFIGURATION / "gres.conf").write_text("".join(gpus))
    (folder / "state").mkdir()
    PIDS.mkdir(exist_ok=True)
    for node in nodes:
        (folder / f"spool-{node}").mkdir()


def _start_munge(folder: Path) -> None:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    socket_folder = Path("/run/munge")
    socket_folder.mkdir(parents=True, exist_ok=True)
    socket_folder.chmod(0o755)
    subprocess.run(
        [
            "munged",
            "--force",
            f"--key-file={key}",
            f"--pid-file={PIDS}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        ],
        check=True,
    )


@contextmanager
def slurm_cluster(nodes: int = 1) -> Iterator[Path]:
    """Run a cluster for the time of the block; yield the folder of its state and logs."""
    if os.geteuid() != 0:
        raise SlurmUnavailable("needs root to write /etc/slurm and make device nodes")
    with Path(tempfile.gettempdir(), "threedrs-slurm-test.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Jobs have sockets here, and a socket's path has at most 108 bytes: not pytest's folder.
        names = [f"node{number}" for number in range(1, nodes + 1)]
        place = tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")
        with place as folder, _daemons(Path(folder), names):
            yield Path(folder)


def running_cluster(nodes: int = 1) -> Iterator[Path]:
    """Be the body of a fixture: a cluster, or the test is skipped with the reason."""
    running = slurm_cluster(nodes)
    try:
        folder = running.__enter__()
    except SlurmUnavailable as reason:
        pytest.skip(f"no Slurm here: {reason}")
    try:
        yield folder
    finally:
        running.__exit__(None, None, None)


def stop_controller() -> None:
    """End slurmctld; jobs run on, and nobody can be asked about them."""
    _stop(PIDS / "slurmctld.pid")


def start_controller() -> None:
    """Start slurmctld again with the state that it left."""
    subprocess.run(["slurmctld"], check=True)


@contextmanager
def _daemons(folder: Path, names: list[str]) -> Iterator[None]:
    _remove_leftover()
    install()
    try:
        _configure(folder, names)
        _start_munge(folder)
        subprocess.run(["slurmctld", "-c"], check=True)
        for name in names:
            subprocess.run(["slurmd", "-c", "-N", name], check=True)
        _wait_until_idle(folder)
        yield
    finally:
        (folder / "hold").unlink(missing_ok=True)
        _stop_daemons()


def _remove_leftover() -> None:
    """Stop what a killed test left running; refuse to touch a real cluster's configuration."""
    configuration = CONFIGURATION / "slurm.conf"
    if not configuration.exists():
        return
    text = configuration.read_text()
    if "ClusterName=threedrs-test" not in text:
        raise SlurmUnavailable(f"{configuration} belongs to a real cluster")
    _stop_daemons()


def _stop_daemons() -> None:
    """End all jobs and then the daemons; a job's own daemon would outlive them."""
    if _running(PIDS / "slurmctld.pid"):
        _ask("scancel", "--signal=KILL", "--full", "--user=root")
        _ask("scancel", "--user=root")
        deadline = time.monotonic() + 15
        while _ask("squeue", "-h", "-o", "%A") and time.monotonic() < deadline:
            time.sleep(0.2)
    for pid_file in (*PIDS.glob("node*.pid"), PIDS / "slurmctld.pid", PIDS / "munged.pid"):
        _stop(pid_file)
    for name in ("slurm.conf", "gres.conf"):
        (CONFIGURATION / name).unlink(missing_ok=True)


def _wait_until_idle(folder: Path, seconds: int = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = _ask("sinfo", "-h", "-o", "%T")
        if state == "idle":  # one line: all nodes are
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-500:] for path in folder.glob("slurm*.log"))
    raise SlurmUnavailable(f"the nodes did not become idle ({state!r}):\n{logs}")


def _ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip()


def _running(pid_file: Path) -> int | None:
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if Path(f"/proc/{pid}").exists() else None


def _stop(pid_file: Path) -> None:
    pid = _running(pid_file)
    if pid is None:
        return
    os.kill(pid, 15)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, 9)
