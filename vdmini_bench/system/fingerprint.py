"""What a result was measured on: hardware, versions and the state of the code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("vdmini", "torch", "diffusers", "transformers", "accelerate", "numpy", "scipy", "av", "safetensors")


@dataclass(frozen=True)
class Fingerprint:
    """Hardware and software of one run; `machine_id` is a hash of the hardware alone."""

    machine_id: str
    cpu: str
    cores: int
    gpu: str
    python: str
    versions: dict[str, str]
    commit: str
    dirty: bool


def take_fingerprint() -> Fingerprint:
    """Describe this machine and this code; never fails on what cannot be found out."""
    import torch

    cpu = cpu_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    machine = hashlib.sha256(f"{cpu}|{cores}|{gpu}|{torch.cuda.device_count()}".encode()).hexdigest()[:12]
    commit, dirty = code_state()
    return Fingerprint(machine, cpu, cores, gpu, platform.python_version(), package_versions(), commit, dirty)


def code_state() -> tuple[str, bool]:
    """The commit that this code is of, `unknown` outside a checkout, and whether it was changed since."""
    # Installed into an environment that lies inside somebody's checkout, this code is none of that checkout's.
    ours = bool(_git("ls-files", "--", Path(__file__).name))
    commit = (_git("rev-parse", "--short=12", "HEAD") if ours else "") or "unknown"
    # Results are written into the checkout by the run itself; only changed code makes it dirty.
    return commit, ours and bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":(top,exclude)results"))


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that can change a number."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def describe_environment() -> list[str]:
    """The version, then what else a report of a problem should say: Python, system, processor, packages, commit."""
    versions = package_versions()
    commit, dirty = code_state()
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "vdmini")
    return [
        f"vdmini-bench, version {versions['vdmini']}",
        f"python {platform.python_version()} ({platform.python_implementation()}), {platform.platform()}",
        f"processor: {cpu_name()}, {os.cpu_count()} cores",
        f"packages: {packages}",
        f"code: {commit}{', changed since' if dirty else ''}",
    ]


def cpu_name() -> str:
    """The processor's name as the system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    """Ask git about the checkout this package lives in; empty when it is not one."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(  # noqa: S603 - a list of our own words, no shell
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
