"""The weights of files that must be run to be read: a TorchScript file is, once, and our network must answer alike."""

from __future__ import annotations

from vdmini_bench.metrics.c3d_script import read_c3d_script
from vdmini_bench.metrics.i3d_script import read_i3d_script

# What `assets.cache.import_asset` takes, by asset.
CONVERTERS = {"i3d-torchscript": read_i3d_script, "c3d-ucf101": read_c3d_script}
