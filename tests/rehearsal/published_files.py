"""Every file that the paper's suites read, in its published format: small networks with seeded weights, drawn clips."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / folder) for folder in ("vdmini", "vdmini_bench", "vdmini_bench/vbench")]

from small_networks import write_small_cache  # noqa: E402
from small_scripts import C3dCall, I3dCall, save_script  # noqa: E402
from small_suite import write_words  # noqa: E402
from small_videos import fake_environment  # noqa: E402
from tiny_transformers import WIDTH, hunyuanvideo_pipeline  # noqa: E402

from vdmini import load_model  # noqa: E402
from vdmini.models.videocrafter import VideoCrafterUNet  # noqa: E402
from vdmini.models.videocrafter_pipeline import VideoCrafterPipeline, consistency_scheduler  # noqa: E402
from vdmini_bench.assets.catalogue import ASSETS  # noqa: E402
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, I2V, T2V  # noqa: E402
from vdmini_bench.data.video import write_video  # noqa: E402
from vdmini_bench.models.random_models import build_random, materialise  # noqa: E402
from vdmini_bench.vbench.driver import repair_torchvision  # noqa: E402
from vdmini_bench.vbench.native.catalogue import WORDS  # noqa: E402

CLASSES = Path(__file__).with_name("ucf101_classes.txt").read_text(encoding="utf-8").split()
# The groups of the three test lists, as published.
TEST_GROUPS = {"01": (1, 7), "02": (8, 14), "03": (15, 21)}
GROUPS = (1, 8, 15, 25)
HUB_COMMIT = "9cf024d5bfa8f56622af86c884f26a52f6676f2e"
SVD = "stabilityai/stable-video-diffusion-img2vid"
HUNYUANVIDEO = "hunyuanvideo-community/HunyuanVideo"


def write_all(root: Path, classes: int = len(CLASSES)) -> dict[str, str]:
    """Write everything below a folder; the variables of the environment that commands need to find it.

    What the asset cache holds is imported by commands: see `IMPORTS`. `classes` of UCF101 are written.
    """
    root.mkdir(parents=True, exist_ok=True)
    write_ucf101(root / "ucf101", CLASSES[:classes])
    write_svd(root / "hub")
    write_hunyuanvideo(root / "hub")
    write_t2v_turbo(root / "models" / "t2v-turbo-v2")
    write_scripts(root)
    write_captioned(root / "captioned-videos")
    write_vbench_weights(root / "vbench")
    write_vbench_i2v(root / "vbench-i2v")
    write_vbench_environment(root / "vbench-env")
    write_inception(root / "cache")
    return {
        "VDMINI_CACHE": str(root / "cache"), "VBENCH_CACHE_DIR": str(root / "vbench"),
        "VDMINI_VBENCH_ENV": str(root / "vbench-env"), "HF_HUB_CACHE": str(root / "hub"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip


# What a user does by hand, once: the name of an asset and the file or folder below the root.
IMPORTS = {
    "ucf101": "ucf101", "i3d-torchscript": "i3d_torchscript.pt", "c3d-ucf101": "c3d_ucf101.pt",
    "vbench-i2v": "vbench-i2v",
}  # fmt: skip


def moving_picture(seed: int, frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """A window T H W C that moves over a smooth coloured pattern, of one seed."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : height + frames, 0 : width + frames]
    waves = random.uniform(0.02, 0.08, (3, 2))
    whole = np.stack([np.sin(down * rows + across * columns) for down, across in waves], -1)
    picture = (127.5 * (1 + whole)).astype(np.uint8)
    down, across = random.integers(0, 2, 2)
    return np.stack([picture[down * t : down * t + height, across * t : across * t + width] for t in range(frames)])


def write_ucf101(folder: Path, classes: list[str]) -> None:
    """UCF-101/ with a clip of each class and group, 52 frames of 320x240 at 25 fps, and ucfTrainTestlist/."""
    names = {}
    for number, label in enumerate(classes, start=1):
        for group in GROUPS:
            relative = f"{label}/v_{label}_g{group:02d}_c01.avi"
            clip = moving_picture(100 * number + group, 52, 240, 320)
            write_video(folder / "UCF-101" / relative, clip, 25)
            names[relative] = (number, group)
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{place} {label}\n" for place, label in enumerate(classes, start=1)))
    for split, (first, last) in TEST_GROUPS.items():
        held_out = [name for name, (_, group) in names.items() if first <= group <= last]
        # Published lists end their lines as Windows does.
        test = "".join(f"{name}\r\n" for name in held_out)
        train = "".join(f"{name} {number}\r\n" for name, (number, _) in names.items() if name not in held_out)
        (lists / f"testlist{split}.txt").write_bytes(test.encode())
        (lists / f"trainlist{split}.txt").write_bytes(train.encode())


def _hub_folder(hub: Path, name: str) -> Path:
    """Where the hub's local cache keeps a model."""
    model = hub / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(HUB_COMMIT)
    return model / "snapshots" / HUB_COMMIT


def write_svd(hub: Path) -> None:
    """SVD's topology at a tenth of its width, as the hub has it: half precision by variant, in shards."""
    cpu = torch.device("cpu")
    model = build_random("svd", device=cpu, dtype=torch.float16, width=64)
    pipeline = model.pipeline
    assert pipeline is not None
    # Heads of half their width too: no whole one is narrower.
    for name, part in (("unet", model.denoiser), ("vae", model.vae)):
        config: Any = {key: value for key, value in part.config.items() if not key.startswith("_")}
        widths = [max(32, 32 * round(each / 64)) for each in config["block_out_channels"]]
        with torch.device("meta"):
            narrow = type(part).from_config(config | {"block_out_channels": widths})
        pipeline.register_modules(**{name: materialise(narrow, device=cpu, dtype=torch.float16, seed=0)})
    folder = _hub_folder(hub, SVD)
    pipeline.save_pretrained(folder, variant="fp16", max_shard_size="20MB")


def write_hunyuanvideo(hub: Path) -> None:
    """HunyuanVideo's 20 and 40 blocks at a tiny width, with both text encoders, in shards."""
    from diffusers import HunyuanVideoTransformer3DModel

    torch.manual_seed(0)
    denoiser = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=20,
        num_single_layers=40, num_refiner_layers=1, text_embed_dim=WIDTH, pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    pipeline = hunyuanvideo_pipeline(denoiser)
    pipeline.to(torch.bfloat16).save_pretrained(_hub_folder(hub, HUNYUANVIDEO), max_shard_size="1MB")


def write_t2v_turbo(folder: Path) -> None:
    """T2V-Turbo-v2 at a fifth of its width: `unet_mg.pt`, and the folder that docs/bring-your-own.md makes of it."""
    model = build_random("t2v-turbo-v2", device=torch.device("cpu"), dtype=torch.float16, width=64)
    assert isinstance(model.denoiser, VideoCrafterUNet)
    parts: Any = model.pipeline
    folder.mkdir(parents=True)
    torch.save(model.denoiser.to_original(), file := folder.with_name("unet_mg.pt"))
    read = load_model(file, family="t2v-turbo-v2", dtype="auto").denoiser
    pipeline = VideoCrafterPipeline(read, parts.vae, parts.text_encoder, parts.tokenizer, consistency_scheduler())
    pipeline.save_pretrained(folder)


def write_scripts(folder: Path) -> None:
    """StyleGAN-V's TorchScript files, I3D with its own weights from the package."""
    from vdmini_bench.assets.cache import fetch_asset
    from vdmini_bench.metrics.features import load_i3d

    fetch_asset("i3d-kinetics400")
    save_script(I3dCall(load_i3d()), folder / "i3d_torchscript.pt")
    classifier = C3dCall()
    # Less sure of itself than random weights are: a probability of 0 has no StyleGAN-V score, as published.
    nn.init.normal_(classifier.last.weight, std=0.002)
    save_script(classifier, folder / "c3d_ucf101.pt")


def write_captioned(folder: Path) -> None:
    """An OpenVid-like set: videos beside a CSV with more columns than are read."""
    folder.mkdir(parents=True)
    lines = ["video,caption,aesthetic score,motion score,fps,seconds"]
    for number in range(8):
        write_video(folder / f"clip_{number}.mp4", moving_picture(number, 24, 144, 192), 24)
        lines.append(f'clip_{number}.mp4,"A pattern of number {number}, drifting slowly",5.1,2.0,24,1.0')
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


def write_vbench_weights(folder: Path) -> None:
    """VBENCH_CACHE_DIR with every file of the official layout; those that only the official code reads hold little."""
    golden = json.loads((TESTS / "golden" / "vbench_native.json").read_text(encoding="utf-8"))
    write_small_cache(folder, golden["shapes"])
    write_words(folder / WORDS, golden["merges"])
    for dimension in DIMENSIONS.values():
        for weight in dimension.weights:
            path = folder / weight.path
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save({"weight": torch.ones(1)}, path) if path.suffix != ".py" else path.write_text(
                    "import torch\n"
                )


def write_vbench_environment(folder: Path) -> None:
    """The official package's place: its prompts in small, and a driver that answers 0.5 for every video."""
    fake_environment(folder)
    package = folder / "lib" / "python3.11" / "site-packages" / "vbench"
    package.mkdir(parents=True)
    # As official entries have them, for the dimensions that look for something in particular.
    asked: dict[str, dict[str, Any]] = {
        "object_class": {"object": "person"}, "multiple_objects": {"object": "person and ball"},
        "human_action": {"action": "walking"}, "color": {"color": "red"},
        "spatial_relationship": {"spatial_relationship": "left"}, "scene": {"scene": {"scene": "road"}},
        "appearance_style": {"appearance_style": "oil painting"},
    }  # fmt: skip
    still = {"prompt_en": "a still red ball", "dimension": ["temporal_flickering"]}
    others = [name for name in T2V if name not in still["dimension"]]
    entries: list[dict[str, Any]] = [
        {"prompt_en": "a person walks along a quiet road", "dimension": others, "auxiliary_info": asked}, still
    ]  # fmt: skip
    (package / "VBench_full_info.json").write_text(json.dumps(entries), encoding="utf-8")


def write_vbench_i2v(folder: Path) -> None:
    """VBench-I2V's prompts and images in their four crops."""
    sizes = {"1-1": (720, 720), "8-5": (1152, 720), "7-4": (1260, 720), "16-9": (1280, 720)}
    names = ["a bridge over a river.jpg", "a cat, looking up.jpg"]
    for ratio, (width, height) in sizes.items():
        crops = folder / "data" / "crop" / ratio
        crops.mkdir(parents=True)
        for seed, name in enumerate(names):
            Image.fromarray(moving_picture(seed, 1, height, width)[0]).save(crops / name)
    entries = [
        {
            "prompt_en": Path(name).stem, "dimension": [*I2V], "image_type": "scenery", "image_name": name,
            "auxiliary_info": {"camera_motion": "pan left"},
        }
        for name in names
    ]  # fmt: skip
    (folder / "vbench2_i2v_full_info.json").write_text(json.dumps(entries), encoding="utf-8")


def write_inception(cache: Path) -> None:
    """pytorch-fid's file with seeded weights, in the cache as an import leaves it: its published hash is another."""
    if find_spec("pytorch_fid") is None or find_spec("torchvision") is None:
        return
    repair_torchvision()
    from pytorch_fid import inception

    state: dict[str, torch.Tensor] = {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(nn.Module, "load_state_dict", lambda self, _: state.update(self.state_dict()))
        inception.fid_inception_v3()
    file = cache / ASSETS["pytorch-fid-inception"].file_name
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    file.with_name(f"{file.name}.sha256").write_text(hashlib.sha256(file.read_bytes()).hexdigest() + "\n")


if __name__ == "__main__":
    os.environ |= {"VDMINI_CACHE": str(Path(sys.argv[1]) / "cache")}
    print(json.dumps(write_all(Path(sys.argv[1]))))
