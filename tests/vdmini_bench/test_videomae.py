"""VideoMAE as cd-fvd has it: equal to the original at a small size, and a network of FVD and KVD that is imported.

`golden/videomae_small.npz` was made by cd-fvd 0.1.1 from the package registry: its transformer at a small size with
weights filled by name, its preprocessing, and the names and shapes of its giant; its `note` says the rest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from vdmini_bench.assets import videomae_checkpoint
from vdmini_bench.assets.cache import fetch_asset, import_asset
from vdmini_bench.assets.videomae_checkpoint import GIANT, VIDEOMAE, Size
from vdmini_bench.cli import main
from vdmini_bench.commands import doctor
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.data.preprocessing import short_side_256_crop_square
from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.data.video import write_video
from vdmini_bench.errors import AssetError
from vdmini_bench.metrics import videomae
from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.metrics.fvd import clips_to_features, prepare_clips
from vdmini_bench.metrics.videomae import VideoMae, convert_weights, load_videomae
from vdmini_bench.suites.distributions import networks_digest

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
SMALL = Size(width=44, hidden=192, depth=3, heads=4)


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, NDArray[Any]]:
    with np.load(golden / "videomae_small.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def checkpoint(vectors: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: filled(name, shape) for name, shape in json.loads(str(vectors["keys"])).items()}


def filled(name: str, shape: list[int]) -> Tensor:
    """A weight that follows from its name alone, as in the golden file."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    value = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        return torch.from_numpy(value / np.float32(np.sqrt(np.prod(shape[1:]))))
    return torch.from_numpy(np.float32(0.1) * value + np.float32(name.endswith("weight")))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for asking in (videomae, videomae_checkpoint):
        monkeypatch.setattr(asking, "GIANT", SMALL)
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))


def network_of(checkpoint: dict[str, Tensor]) -> VideoMae:
    network = VideoMae(SMALL)
    network.load_state_dict(convert_weights(checkpoint))
    return network.eval().requires_grad_(False)


def clips(video: NDArray[np.uint8], times: int = 1) -> Tensor:
    """B T H W C to B T C H W, each pixel repeated."""
    return torch.from_numpy(video.repeat(times, 2).repeat(times, 3)).permute(0, 1, 4, 2, 3)


def test_features_equal_the_original(vectors: dict[str, NDArray[Any]], checkpoint: dict[str, Tensor]) -> None:
    network, video = network_of(checkpoint), vectors["video"]
    for name, batch in (
        ("features", clips(video)),
        ("features_large", clips(video, 16)),
        ("features_32_frames", clips(video.reshape(1, 32, *video.shape[2:]))),
    ):
        found = clips_to_features([batch], network, "plain").numpy()
        assert found.shape == vectors[name].shape
        assert np.abs(found - vectors[name]).max() < 1e-5
    assert np.abs(vectors["features"][0] - vectors["features"][1]).max() > 1e-2


def test_frames_are_prepared_as_the_original_does(vectors: dict[str, NDArray[Any]]) -> None:
    for name, times in (("prepared", 1), ("prepared_large", 16)):
        prepared = (prepare_clips(clips(vectors["video"], times), torch.device("cpu"), "plain") + 1) / 2
        found = prepared[:, :, ::5, ::23, ::29].numpy()
        assert np.abs(found - vectors[name]).max() < 1e-6


def test_the_giant_has_the_originals_tensors(vectors: dict[str, NDArray[Any]]) -> None:
    published = {name: tuple(shape) for name, shape in json.loads(str(vectors["giant_keys"])).items()}
    assert videomae_checkpoint.original_shapes(GIANT) == published
    with torch.device("meta"):
        network = VideoMae(GIANT)
        original = {name: torch.empty(shape) for name, shape in published.items()}
    converted = convert_weights(original)
    assert {name: value.shape for name, value in converted.items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    assert sum(value.numel() for value in converted.values()) == 1_011_610_752


def test_an_odd_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="clips of 17 frames: VideoMAE takes pairs"):
        VideoMae(SMALL)(torch.zeros(1, 3, 17, 224, 224))


def written(folder: Path, checkpoint: dict[str, Tensor], kind: str) -> Path:
    """The checkpoint in half precision, in each of the ways in which it may come."""
    folder.mkdir(exist_ok=True)
    halves = {name: value.half() for name, value in checkpoint.items()}
    if kind == "safetensors":
        save_file(halves, folder / "weights.bin")
    elif kind == "slices of one buffer":
        buffer = torch.cat([value.flatten() for value in halves.values()])
        parts = buffer.split([value.numel() for value in halves.values()])
        whole = zip(halves.items(), parts, strict=True)
        torch.save({"module": {name: part.view(value.shape) for (name, value), part in whole}}, folder / "weights.bin")
    else:
        torch.save({"module": halves}, folder / "weights.bin", _use_new_zipfile_serialization=kind == "zip")
    return folder / "weights.bin"


@pytest.mark.usefixtures("small")
def test_every_form_of_the_checkpoint_is_imported_unchanged(tmp_path: Path, checkpoint: dict[str, Tensor]) -> None:
    halves = {name: value.half() for name, value in checkpoint.items()}
    expected = network_of(halves).state_dict()
    stored = set()
    for kind in ("zip", "legacy", "slices of one buffer", "safetensors"):
        stored.add(import_asset(VIDEOMAE, written(tmp_path / kind, checkpoint, kind)).read_bytes())
        found = load_videomae()
        assert not found.training
        for name, value in found.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, expected[name]), name
    assert len(stored) == 1, "the same tensors are the same file, whatever they came in"


class Code:
    """What a pickle that runs code would hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this ran",))


def changed(checkpoint: dict[str, Tensor], what: str) -> Any:
    if what == "code":
        return {"module": checkpoint, "settings": Code()}
    if what == "nothing":
        return [1, 2]
    if what == "missing":
        return {name: value for name, value in checkpoint.items() if name != "blocks.1.attn.q_bias"}
    if what == "more":
        return checkpoint | {"pos_embed": torch.zeros(1)}
    if what == "whole numbers":
        return checkpoint | {"fc_norm.bias": checkpoint["fc_norm.bias"].int()}
    return checkpoint | {"head.weight": torch.zeros(400, SMALL.width)}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("code", "cannot be read as weights and nothing else"),
        ("nothing", "is another network: it has no patch_embed.proj.weight"),
        ("missing", "is another network: it has no blocks.1.attn.q_bias"),
        ("more", "is another network: it has pos_embed"),
        ("whole numbers", "fc_norm.bias is torch.int32"),
        ("Kinetics-400", r"head.weight is torch.float32 of shape \(400, 44\)"),
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, checkpoint: dict[str, Tensor], what: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(changed(checkpoint, what), tmp_path / "other.pth")
    with pytest.raises(AssetError, match=said):
        import_asset(VIDEOMAE, tmp_path / "other.pth")
    assert "this ran" not in capsys.readouterr().out
    assert not list((tmp_path / "cache").glob("videomae*.sha256"))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("content", "said"), [(b"<!DOCTYPE html>", "a web page"), (b"PK\x03\x04 cut", "cannot be read"), (b"", "is empty")]
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(AssetError, match=said):
        import_asset(VIDEOMAE, tmp_path / "other.pth")


class SmallI3d(nn.Module):
    """Averages over a grid of 4 x 5 x 20 places: 400 numbers that tell clips apart."""

    def forward(self, video: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool3d(video.mean(dim=1, keepdim=True), (4, 5, 20)).flatten(1)


def fetch_but_i3d(name: str) -> None:
    if name != "i3d-kinetics400":
        fetch_asset(name)


def digest_but_i3d(protocol: ProtocolSpec) -> str:
    return "small" if protocol.network == "i3d-kinetics400" else networks_digest(protocol)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of videos as long as a clip and no longer, so that no offset is drawn."""
    monkeypatch.setattr("vdmini_bench.metrics.features.load_i3d", lambda asset: SmallI3d())
    monkeypatch.setattr("vdmini_bench.suites.folder.fetch_asset", fetch_but_i3d)
    monkeypatch.setattr("vdmini_bench.suites.folder.networks_digest", digest_but_i3d)
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    for name, start in (("made", 0), ("real", 30)):
        for number in range(start, start + 4):
            write_video(tmp_path / name / f"{number}.mkv", drawn(number), 7)
    return tmp_path


def drawn(number: int) -> NDArray[np.uint8]:
    frames = draw_clip(tuple(ACTIONS)[number % len(ACTIONS)], 1, number).frames
    return np.concatenate([frames, frames])[:16]


def score(folders: Path, *options: str) -> Result:
    arguments = ["score", folders / "made", "--against", folders / "real", "--suite", SUITE, "--json"]
    few = ["--results", folders / "results", "--set", "protocol.clips_per_block=4", "--set", "protocol.blocks=1"]
    return CliRunner().invoke(main, [str(each) for each in (*arguments, *few, *options)])


def preset(name: str) -> tuple[str, ...]:
    return ("--profile", "paper", "--set", f"protocol.preset={name}")


@pytest.mark.usefixtures("small")
def test_scores_of_videomae_are_its_own(folders: Path, checkpoint: dict[str, Tensor]) -> None:
    import_asset(VIDEOMAE, written(folders / "weights", checkpoint, "zip"))
    result, other = score(folders, *preset("cd-fvd-videomae")), score(folders, *preset("cd-fvd"))
    assert (result.exit_code, other.exit_code) == (0, 0), result.output + other.output
    found = json.loads(result.stdout)
    rows = {row["metric"]: row for row in found["rows"]}
    assert rows["fvd"]["metric_version"] == "videomae2-giant-ssv2-1-n"
    assert rows["fvd"]["protocol"].startswith("cd-fvd-videomae@1/n4x1/against4-")
    assert (rows["kvd"]["status"], rows["kvd"]["metric_version"]) == (
        "ok",
        "videomae2-giant-ssv2-polynomial3-unbiased-1",
    )
    assert len(list((folders / "results" / "work").glob("reference-*"))) == 2, "real statistics are kept by network"

    network = load_videomae()
    made, real = (
        clips_to_features([clips(short_side_256_crop_square(drawn(n))[None]) for n in numbers], network, "plain")
        for numbers in (range(4), range(30, 34))
    )
    assert float(rows["fvd"]["value"]) == pytest.approx(frechet_distance(made, real, ddof=0), rel=1e-4)

    refused = CliRunner().invoke(main, ["compare", found["folder"], json.loads(other.stdout)["folder"]])
    assert refused.exit_code == 5
    assert "the protocol differs" in refused.stderr


@pytest.mark.usefixtures("small")
def test_one_protocol_on_two_networks_is_not_compared(folders: Path, checkpoint: dict[str, Tensor]) -> None:
    import_asset(VIDEOMAE, written(folders / "weights", checkpoint, "zip"))
    own = ("--profile", "smoke", "--set", "protocol.reference=computed", "--set", "protocol.inception=c3d-ucf101")
    results = score(folders, *own), score(folders, *own, "--set", "protocol.network=videomae-ssv2")
    assert [result.exit_code for result in results] == [0, 0], results[0].output + results[1].output
    refused = CliRunner().invoke(main, ["compare", *(json.loads(result.stdout)["folder"] for result in results)])
    assert refused.exit_code == 5
    assert "fvd: the metric version differs" in refused.stderr


@pytest.mark.usefixtures("small")
def test_without_the_weights_nothing_is_scored_or_run(folders: Path) -> None:
    run = ["run", str(SUITE), *preset("cd-fvd-videomae"), "--results", str(folders / "results")]
    for result in (score(folders, *preset("cd-fvd-videomae")), CliRunner().invoke(main, run)):
        assert result.exit_code == 2, result.output
        assert "videomae-ssv2: VideoMAE v2 giant" in result.stderr
        assert "vit_g_hybrid_pt_1200e_ssv2_ft.pth" in result.stderr
        assert "next     vdmini-bench assets import videomae-ssv2 PATH" in result.stderr
    assert not (folders / "results" / "work").exists()
    plan = CliRunner().invoke(main, [*run, "--dry-run"])
    assert "missing videomae-ssv2" in plan.stdout
    assert "fetch i3d-kinetics400" not in plan.stdout
    (found,) = (finding for finding in doctor._assets() if finding.what == "asset videomae-ssv2")
    assert found.state == "missing; for FVD and KVD of the preset cd-fvd-videomae"
    assert found.next == "vdmini-bench assets import videomae-ssv2 PATH"
    assert found.fine
