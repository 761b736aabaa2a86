"""A real Slurm cluster on one machine, started and stopped by process id, with stand-in GPUs.

A node is a daemon with a name and a port of its own, so there may be several.

The GPUs are character devices that Slurm hands out like real ones: a job that asks for a GPU is
queued, placed and given CUDA_VISIBLE_DEVICES as on a cluster; what runs there finds no CUDA and
computes on the CPU.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ["slurm-wlm", "munge"]
CONFIGURATION = Path("/etc/slurm")  # jobs do not inherit SLURM_CONF
DAEMONS = ("munged", "slurmctld", "slurmd")
GPUS = 2  # a node
PORT = 17010  # of the first node
FAKE_GPU_MAJOR = 1  # with minor 3: the null device


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
        f"CPUs={os.cpu_count()} RealMemory={memory} Gres=gpu:{GPUS}\n"
        for number, node in enumerate(nodes)
    ]
    settings = f"""
ClusterName=threedrs-test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
MinJobAge=600
GresTypes=gpu
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
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
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        ],
        check=True,
    )


@contextmanager
def slurm_cluster(folder: Path, nodes: int = 1) -> Iterator[None]:
    """Run a cluster whose state lies in ``folder`` for the time of the block."""
    names = [f"node{number}" for number in range(1, nodes + 1)]
    _remove_leftover()
    install()
    if os.geteuid() != 0:
        raise SlurmUnavailable("needs root to write /etc/slurm and make device nodes")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _configure(folder, names)
        _start_munge(folder)
        subprocess.run(["slurmctld", "-c"], check=True)
        for name in names:
            subprocess.run(["slurmd", "-c", "-N", name], check=True)
        _wait_until_idle(folder)
        yield
    finally:
        _stop_daemons(folder)


def _remove_leftover() -> None:
    """Stop what a killed test left running; refuse to touch a real cluster's configuration."""
    configuration = CONFIGURATION / "slurm.conf"
    if not configuration.exists():
        return
    text = configuration.read_text()
    if "ClusterName=threedrs-test" not in text:
        raise SlurmUnavailable(f"{configuration} belongs to a real cluster")
    _stop_daemons(Path(re.search(r"SlurmctldPidFile=(.*)/slurmctld.pid", text)[1]))


def _stop_daemons(folder: Path) -> None:
    for pid_file in (*folder.glob("node*.pid"), folder / "slurmctld.pid", folder / "munged.pid"):
        _stop(pid_file)
    for name in ("slurm.conf", "gres.conf"):
        (CONFIGURATION / name).unlink(missing_ok=True)


def _wait_until_idle(folder: Path, seconds: int = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if state == "idle":  # one line: all nodes are
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-500:] for path in folder.glob("slurm*.log"))
    raise SlurmUnavailable(f"the nodes did not become idle ({state!r}):\n{logs}")


def _stop(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return
    if not Path(f"/proc/{pid}").exists():
        return
    os.kill(pid, 15)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, 9)
