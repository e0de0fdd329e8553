"""What a VAE's decoder loses on clips that nothing was trained on: reconstruct.py SOURCE JOB VIDEOS OUTPUT

SOURCE is a teacher, JOB the folder of a job that made its decoder smaller, VIDEOS one in UCF101's layout, whose test
list is read. Prints the PSNR of both, and leaves both sets of clips in OUTPUT, for `vdmini-bench score` to score.
"""

import statistics
import sys
from pathlib import Path

import numpy as np
import torch

from vdmini import load_model
from vdmini_bench.config.suite import load_suite
from vdmini_bench.data.ucf101 import choose_balanced, read_split
from vdmini_bench.data.video import read_frames, write_video
from vdmini_bench.metrics.fidelity import clip_fidelity
from vdmini_bench.models.ready import load_decoder

source, folder, videos, output = sys.argv[1], *map(Path, sys.argv[2:5])
protocol = load_suite(Path("suites/ucf101.yaml")).profile.protocol
chosen = choose_balanced(read_split(videos, "01").test, 2 * protocol.clips, seed=0)[protocol.clips :]
for name, vae in {"whole": load_model(source).pipeline.vae, "small": load_decoder(folder)}.items():
    vae.eval()
    found = []
    for place, video in enumerate(chosen):
        clip = read_frames(video.path, protocol.frames, protocol.rate)
        with torch.inference_mode():
            pixels = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1
            latents = vae.encode(pixels).latent_dist.mode()
            decoded = vae.decode(latents, num_frames=protocol.frames).sample
        again = ((decoded + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        write_video(output / name / f"{place:03d}.mkv", np.ascontiguousarray(again), protocol.rate)
        found.append(clip_fidelity(clip, again)["psnr"])
    size = protocol.clips_per_block
    blocks = [statistics.fmean(found[start : start + size]) for start in range(0, len(found), size)]
    error = statistics.stdev(blocks) / len(blocks) ** 0.5
    print(f"{name}: PSNR {statistics.fmean(blocks):.2f} ± {error:.2f} dB over {len(blocks)} blocks of {size} clips")
