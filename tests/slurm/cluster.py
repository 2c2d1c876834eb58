"""A private SLURM of one machine for the tests: real daemons, real jobs, its own ports, nothing outside its folder.

Debian's `slurm-wlm` is enough. `auth/none` needs no munge, two empty files stand in for two GPUs per node, and
finished jobs are written down in `jobs.txt`: there is no accounting, as on many small clusters.
"""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo")

#: `SlurmdParameters=config_overrides` lets a node claim more cores than the machine has: jobs wait for GPUs only.
CONFIGURATION = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
SwitchType=switch/none
ReturnToService=2
KillWait=10
MinJobAge=600
JobRequeue=1
{nodes}
PartitionName=batch Nodes={names} Default=NO MaxTime=1-00:00:00 State=UP
PartitionName=cpu Nodes={names} Default=YES MaxTime=02:00:00 State=UP
"""


def missing() -> list[str]:
    """Return the programs of SLURM that this machine lacks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in DAEMONS if shutil.which(name, path=path) is None]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


#: The plugin drops SLURM_CONF inside a job, because it begins with SLURM_: so srun brings its own.
SRUN = """#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {program} "$@"
"""

#: The driver asks for states ever more seldom (after 1, 11, 21 … seconds), which suits jobs of hours. Here its
#: question is answered when a job has ended, or after 40 seconds. While there is a file `outage`, it is not at all.
SQUEUE = """#!/bin/sh
case "$*" in *--states=all*) ;; *) exec {program} "$@" ;; esac
for run; do :; done
for second in $(seq 80); do
    if [ -e {folder}/outage ]; then
        echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2
        echo >> {folder}/outage
        exit 1
    fi
    states=$({program} "$@") || exit 1
    ended=$(echo "$states" | grep -v -E 'PENDING|RUNNING|COMPLETING|CONFIGURING|REQUEUED' | sort)
    if [ "$ended" != "$(cat {folder}/ended-$run 2> /dev/null)" ]; then
        echo "$ended" > {folder}/ended-$run
        break
    fi
    sleep 0.5
done
echo "$states"
"""


class Cluster:
    """`nodes` nodes on this machine, two GPUs each; the partitions `batch` (a day) and `cpu` (two hours)."""

    def __init__(self, folder: Path, nodes: int = 2) -> None:
        self.folder = folder
        self.names = [f"node{index + 1}" for index in range(nodes)]
        self.daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Cluster":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which SLURM's commands, and everything that calls them, talk to this cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
        return {
            **kept,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }

    def command(self, *arguments: str) -> str:
        """Run one of SLURM's commands and return what it prints."""
        return subprocess.run(
            arguments, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def queue(self) -> list[tuple[str, str]]:
        """Return (job, state) of the jobs that wait or run."""
        lines = self.command("squeue", "--noheader", "--format=%i %T").splitlines()
        return [(line.split()[0], line.split()[1]) for line in lines]

    def jobs(self) -> dict[str, dict[str, str]]:
        """Return what `scontrol` says of every job it remembers: by number, the fields by name."""
        shown = self.command("scontrol", "--oneliner", "show", "job").splitlines()
        records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown]
        return {record["JobId"]: record for record in records if "JobId" in record}

    def completed(self) -> list[dict[str, str]]:
        """Return the lines of SLURM's own book of finished jobs."""
        path = self.folder / "jobs.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]

    def forget(self) -> None:
        """End every job, so that the next test finds the cluster as it was."""
        for name in self.names:
            if "DRAIN" in self.command("scontrol", "--oneliner", "show", "node", name):
                self.command("scontrol", "update", f"nodename={name}", "state=resume")
        waiting = [job for job, _ in self.queue()]
        if waiting:
            self.command("scancel", *waiting)
            self.command("scancel", "--signal=KILL", "--full", *waiting)
        until = time.monotonic() + 60
        while self.queue() and time.monotonic() < until:
            time.sleep(0.2)

    def stop(self) -> None:
        """End the daemons and every job process below them."""
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
        for process in processes_with(f"SLURM_CONF={self.folder / 'slurm.conf'}"):
            os.kill(process, signal.SIGKILL)

    def _start(self) -> None:
        for name in ("state", *(f"spool-{node}" for node in self.names)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        gpus = [self.folder / f"gpu{index}" for index in range(2)]
        for path in gpus:
            path.touch()
        host = socket.gethostname().split(".")[0]
        controller_port, *ports = free_ports(1 + len(self.names))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=64 RealMemory=200000 Gres=gpu:2"
            for name, port in zip(self.names, ports, strict=True)
        )
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                controller_port=controller_port,
                user=getpass.getuser(),
                folder=self.folder,
                nodes=nodes,
                names=",".join(self.names),
            )
        )
        (self.folder / "bin").mkdir(exist_ok=True)
        for name, text in (("srun", SRUN), ("squeue", SQUEUE)):
            wrapper = self.folder / "bin" / name
            wrapper.write_text(text.format(folder=self.folder, program=shutil.which(name)))
            wrapper.chmod(0o755)
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={path}\n" for path in gpus))
        self._daemon("slurmctld", "-D", "-i")
        for name in self.names:
            self._daemon("slurmd", "-D", "-N", name)
        self._wait_until_idle()

    def _daemon(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        assert path is not None
        with (self.folder / f"{program}.out").open("ab") as out:
            self.daemons.append(
                subprocess.Popen(
                    [path, *arguments, "-f", str(self.folder / "slurm.conf")],
                    env=self.environment,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def _wait_until_idle(self) -> None:
        until = time.monotonic() + 60
        states: list[str] = []
        while time.monotonic() < until:
            try:
                states = self.command("sinfo", "--noheader", "--Node", "--format=%T").split()
            except subprocess.SubprocessError:
                states = []
            if states and set(states) == {"idle"}:
                return
            time.sleep(0.2)
        logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))
        raise RuntimeError(f"the private SLURM did not start (nodes: {states})\n{logs}")


def processes_with(setting: str) -> list[int]:
    """Return the processes, other than this one, whose environment holds ``setting``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if setting.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found
