"""`python -m vdmini_bench` is `vdmini-bench`."""

from vdmini_bench.cli import main

main(prog_name="vdmini-bench")
