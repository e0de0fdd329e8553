"""What `--version` says, without importing what it speaks of."""

from __future__ import annotations

import os
import platform

from vdmini_bench.fingerprint import code_state, cpu_name, package_versions


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
