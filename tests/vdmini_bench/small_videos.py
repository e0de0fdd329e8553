"""A tiny text-to-video teacher and classifier, and an environment that says it holds the official VBench."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from vdmini.models.videocrafter_unet import VideoCrafterUNet
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.embedded.assemble import save_text_pipeline
from vdmini_bench.embedded.text_to_video import build_text_encoder
from vdmini_bench.embedded.text_training import TextToVideo
from vdmini_bench.metrics import semantic
from vdmini_bench.metrics.scene_classifier import RECORD, WEIGHTS, SceneClassifier
from vdmini_bench.vbench.environment import MARKER, Environment

# Answers every request with 0.5 and, per video, the number at the end of its name over 8.
DRIVER = """
import json, sys
from pathlib import Path
asked, answer = map(Path, sys.argv[-2:])
request = json.loads(asked.read_text())
paths = [path for entry in json.loads(Path(request["entries"]).read_text()) for path in entry["video_list"]]
videos = [{"video_path": path, "video_results": int(Path(path).stem[-1]) / 8} for path in paths]
answer.write_text(json.dumps({"result": [0.5, videos], "device": "CPU", "versions": {}, "seconds": 0.1}))
"""


def fake_environment(folder: Path, **problems: str) -> Environment:
    """A folder that says of itself that it holds the official package, and a driver that answers for it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "driver.py").write_text(DRIVER, encoding="utf-8")
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder / "driver.py"}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    record = {"vbench": VBENCH_VERSION, "versions": {}, "problems": dict.fromkeys(DIMENSIONS) | problems}
    (folder / MARKER).write_text(json.dumps(record), encoding="utf-8")
    return Environment(folder)


def write_teacher(folder: Path) -> None:
    """A pipeline of small networks with random weights, which the published rule can prune."""
    torch.manual_seed(0)
    denoiser = VideoCrafterUNet(
        sample_size=(8, 8), block_out_channels=(32, 32, 32, 32), cross_attention_dim=128, attention_head_dim=16,
        num_frames=10,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 32), layers_per_block=1, sample_size=32, scaling_factor=0.5,
    )  # fmt: skip
    save_text_pipeline(folder, vae.eval(), TextToVideo(denoiser, build_text_encoder()).eval())


def write_classifier(folder: Path) -> None:
    """A classifier with random weights, which says of itself that it gets 97 % right."""
    folder.mkdir()
    torch.manual_seed(0)
    save_file(SceneClassifier().state_dict(), folder / WEIGHTS)
    record = {"accuracy": dict.fromkeys(semantic.DIMENSIONS, 0.97)}
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
