"""A suite's jobs on a Slurm cluster of one node, started here: needs Debian's `slurm-wlm` and `munge`, and root."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from results_of_runs import quality

COMMANDS = ("munged", "slurmctld", "slurmd", "sinfo")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=60 State=UP
"""
SUITE = Path(__file__).parents[2] / "suites" / "vbench_t2v.yaml"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of this machine alone, with a partition `short`."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and a Slurm cluster's programs, of which {missing or 'none'} are missing")
    # The path of a socket is short.
    folder = Path("/tmp") / f"slurm-{os.getpid()}"
    (folder / "state").mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    paths = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{name}={folder}/munge.{suffix}" for name, suffix in paths.items()]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=socket.gethostname().partition(".")[0]))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    try:
        subprocess.run(["munged", "--force", f"--key-file={key}", *options], check=True)
        for program in ("slurmctld", "slurmd"):
            subprocess.run([program, "-f", str(configuration)], check=True)
        _wait_for("idle", "sinfo", "--noheader", "--format=%T")
        yield
    finally:
        for pid in folder.glob("*.pid"):
            subprocess.run(["kill", "-9", pid.read_text().strip()], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(wanted: str, *command: str) -> str:
    """What a command prints, once there is something wanted in it."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if wanted in printed:
            return printed
        time.sleep(0.2)
    raise TimeoutError(f"{' '.join(command)} never said {wanted!r}")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_suite_runs_on_a_cluster_where_one_of_its_jobs_is_queued_again(tmp_path: Path) -> None:
    base = [sys.executable, "-m", "vdmini_bench", "run", str(SUITE), "--profile", "smoke", "--json"]
    here = subprocess.run([*base, "--results", str(tmp_path / "here")], capture_output=True, text=True, check=True)
    # The cluster makes again what trains and samples: each of its jobs takes seconds to import what it needs.
    results = shutil.copytree(tmp_path / "here", tmp_path / "cluster")
    for stage in ("distill", "sample"):
        for folder in results.glob(f"work/{stage}-*"):
            shutil.rmtree(folder)
    settings = "--executor-set slurm_partition=short --executor-set timeout_min=30"
    partition = f"--executor slurm --slots 2 {settings}".split()
    process = subprocess.Popen(
        [*base, "--results", str(results), *partition], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        first = _wait_for("RUNNING", "squeue", "--noheader", "--format=%i %T").split()[0]
        subprocess.run(["scontrol", "requeue", first], check=True)
        printed, said = process.communicate(timeout=550)
    finally:
        # Nothing where it is over.
        process.kill()
    assert process.returncode == 0, said
    assert said.count("s in a task") == json.loads(printed)["jobs"]["ran"]
    assert quality(json.loads(printed)["rows"]) == quality(json.loads(here.stdout)["rows"])
