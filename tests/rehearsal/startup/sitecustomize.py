"""What every process of `nox -s rehearsal` does first: beside torch for CPUs, torchvision keeps diffusers from being
imported until two of its operators are declared.
"""

from importlib.util import find_spec

if find_spec("torchvision"):
    from vdmini_bench.vbench.driver import repair_torchvision

    repair_torchvision()
