"""A SLURM cluster of one node on the loopback interface, for tests: munged, slurmctld and slurmd in a folder.

Nothing of the system's own SLURM is touched: key, sockets, ports, state and configuration are all this cluster's own.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
CGROUPS = "CgroupPlugin={plugin}\nCgroupAutomount=no\nConstrainCores=no\nIgnoreSystemd=yes\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")


class NoCluster(Exception):
    """Why there is no cluster here."""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"


@contextmanager
def loopback_slurm(folder: Path, seconds: float = 30) -> Iterator[Path]:
    """Start the cluster in `folder` (a short path: sockets have to fit 100 characters); yields its slurm.conf.

    Raises:
        NoCluster: a program is missing, or the node did not come up within `seconds`; says which and why.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise NoCluster(f"not installed: {', '.join(missing)} (Debian: apt install slurm-wlm munge)")
    if os.geteuid() != 0:
        raise NoCluster("slurmd starts jobs as their user, so it has to be started by root")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    controller_port, node_port = _free_ports(2)
    settings = {
        "folder": folder,
        "host": socket.gethostname().split(".")[0],
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "controller_port": controller_port,
        "node_port": node_port,
        "cores": len(os.sched_getaffinity(0)),
    }
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(**settings))
    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    (folder / "cgroup.conf").write_text(CGROUPS.format(plugin="cgroup/v2" if version_2 else "cgroup/v1"))
    munge_files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
    munge_files |= {"log-file": folder / "munged.log", "seed-file": folder / "munge.seed"}
    commands = {
        "munged": ["munged", "-F", "--force", *(f"--{name}={path}" for name, path in munge_files.items())],
        "slurmctld": ["slurmctld", "-D", "-f", str(configuration)],
        "slurmd": ["slurmd", "-D", "-f", str(configuration)],
    }
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    with ExitStack() as stack:
        daemons = {}
        for name, command in commands.items():
            path = shutil.which(name) or name
            log = stack.enter_context((folder / f"{name}.out").open("wb"))
            daemon = subprocess.Popen([path, *command[1:]], env=environment, stdout=log, stderr=log)
            stack.callback(_stop, daemon)
            daemons[name] = daemon
            if name == "munged":
                _until(lambda: (folder / "munge.socket").exists() or daemons["munged"].poll() is not None, 10)
        sinfo = ["sinfo", "--noheader", "--format", "%T"]

        def idle() -> bool:
            answer = subprocess.run(sinfo, env=environment, capture_output=True, text=True, timeout=seconds)
            return answer.stdout.strip() == "idle" or any(d.poll() is not None for d in daemons.values())

        up = _until(idle, seconds)
        for name, daemon in daemons.items():
            if daemon.poll() is not None:
                raise NoCluster(f"{name} ended by itself: {_last_line(folder / f'{name}.out')}")
        if not up:
            raise NoCluster(f"the node was not ready after {seconds} s: {_last_line(folder / 'slurmctld.out')}")
        yield configuration


def _until(ready, seconds: float) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(0.1)  # for daemons that tell nobody when they are ready
    return False


def _stop(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
