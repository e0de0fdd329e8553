"""Encoded clips survive kills, damage and unreadable files, and are read a few at a time."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor

from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.svd import CONDITIONING
from vdmini.errors import ModelLoadError
from vdmini.latent_index import LatentCacheError
from vdmini.latents import (
    LatentCache,
    UnreadableClipError,
    UnreadableClipsError,
    encode_to_cache,
)

SETTINGS = EncodeSettings(frames_per_second=7)


@dataclass
class FakeConditioning:
    """Encodes a clip by plain arithmetic and notes which."""

    encoded: list[str] = field(default_factory=list)
    empty: bool = True

    def encode_clip(self, pipeline: object, clip: TrainingClip, settings: EncodeSettings) -> dict[str, Tensor]:
        self.encoded.append(clip.name)
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).double() / 127.5 - 1
        noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(clip.seed), dtype=torch.float64)
        words = torch.tensor([len(clip.prompt), clip.seed, settings.frames_per_second])
        return {"latents": frames + settings.noise_strength * noise, "prompt": words, "level": torch.tensor(0.5)}

    def unconditional(self, pipeline: object) -> dict[str, Tensor] | None:
        return {"prompt": torch.tensor([0.0, 0.0, 7.0])} if self.empty else None


@dataclass
class Clips:
    """Ten small random clips; `broken` ones cannot be read."""

    names: Sequence[str] = tuple(f"clip {number}" for number in range(10))
    broken: set[str] = field(default_factory=set)
    height: int = 6

    def clip(self, index: int) -> TrainingClip:
        if self.names[index] in self.broken:
            raise UnreadableClipError(self.names[index], "the file is empty")
        random = np.random.default_rng(index)
        frames = random.integers(0, 256, (3, self.height, 4, 3), dtype=np.uint8)
        return TrainingClip(self.names[index], frames, prompt="a" * index, seed=index)


@pytest.fixture
def conditioning(monkeypatch: pytest.MonkeyPatch) -> FakeConditioning:
    fake = FakeConditioning()
    monkeypatch.setattr("vdmini.conditioning.conditioning_of", lambda denoiser: fake)
    return fake


@pytest.fixture
def pipeline(tiny_teacher: UNetSpatioTemporalConditionModel) -> Any:
    return SimpleNamespace(unet=tiny_teacher)


def encode(pipeline: Any, folder: Path, clips: Clips | None = None, **changes: Any) -> LatentCache:
    options = {"settings": SETTINGS, "identity": "teacher", "clips_per_shard": 4, **changes}
    return encode_to_cache(pipeline, clips or Clips(), folder, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("clips_per_shard", [1, 3, 4, 10, 64])
def test_a_batch_holds_what_each_clip_encodes_to(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path, clips_per_shard: int
) -> None:
    settings = EncodeSettings(frames_per_second=7, noise_strength=0.1)
    encode(pipeline, tmp_path / "cache", settings=settings, clips_per_shard=clips_per_shard)
    cache = LatentCache.open(tmp_path / "cache")
    assert cache.names == Clips().names
    assert len(cache) == 10
    assert dict(cache.settings) == {"frames_per_second": 7, "motion_bucket": 127, "noise_strength": 0.1}
    assert (cache.family, cache.identity) == ("svd", "teacher")
    assert dict(cache.shapes) == {"latents": (3, 3, 6, 4), "level": (), "prompt": (3,)}
    assert cache.unconditional is not None
    assert torch.equal(cache.unconditional["prompt"], torch.tensor([0.0, 0.0, 7.0]))
    for indices in ([3], [9, 0, 5, 5], list(range(10)), []):
        batch = cache.batch(torch.tensor(indices, dtype=torch.long))
        assert set(batch) == {"latents", "prompt", "level"}
        assert all(value.dtype == torch.float32 for value in batch.values())
        assert batch["latents"].shape == (len(indices), 3, 3, 6, 4)
        for place, index in enumerate(indices):
            expected = conditioning.encode_clip(pipeline, Clips().clip(index), settings)
            for name, value in expected.items():
                assert torch.equal(batch[name][place], value.float()), (name, index)
    for outside in (-1, 10):
        with pytest.raises(IndexError, match=f"clip {outside} of 10"):
            cache.batch(torch.tensor([0, outside]))
    assert torch.equal(
        pickle.loads(pickle.dumps(cache)).batch(torch.tensor([2]))["prompt"], cache.batch(torch.tensor([2]))["prompt"]
    )


def test_a_batch_is_the_callers_own(pipeline: Any, conditioning: FakeConditioning, tmp_path: Path) -> None:
    cache = encode(pipeline, tmp_path)
    before = contents(tmp_path)
    cache.batch(torch.arange(10))["latents"].zero_()
    assert cache.batch(torch.arange(10))["latents"].abs().sum() > 0
    assert contents(tmp_path) == before


def test_a_whole_cache_is_not_encoded_again(pipeline: Any, conditioning: FakeConditioning, tmp_path: Path) -> None:
    ticks: list[None] = []
    encode(pipeline, tmp_path, on_clip=lambda: ticks.append(None))
    assert conditioning.encoded == list(Clips().names)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != ".lock"}
    # Not one clip needs to be readable any more.
    cache = encode(pipeline, tmp_path, Clips(broken=set(Clips().names)), on_clip=lambda: ticks.append(None))
    assert len(cache) == len(conditioning.encoded) == 10
    assert len(ticks) == 20
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != ".lock"} == times


HEAD = """
import json, os, signal, sys
from pathlib import Path
import vdmini.conditioning
from test_latents import Clips, FakeConditioning, encode, contents
from types import SimpleNamespace
import torch
from diffusers import UNetSpatioTemporalConditionModel

fake = FakeConditioning()
vdmini.conditioning.conditioning_of = lambda denoiser: fake
with torch.device("meta"):
    pipeline = SimpleNamespace(unet=UNetSpatioTemporalConditionModel())
root = Path(sys.argv[1])
encode(pipeline, root / "unbroken", clips_per_shard=int(sys.argv[2]))
"""
KILLED = """
report = []
for step in range(20):
    child = os.fork()
    if not child:
        steps = 0
        encode_clip, replace = FakeConditioning.encode_clip, Path.replace

        def count():
            global steps
            steps += 1
            if steps > step:
                os.kill(os.getpid(), signal.SIGKILL)

        def slow_encode(self, *arguments):
            count()
            return encode_clip(self, *arguments)

        def slow_replace(self, target):
            count()
            return replace(self, target)

        FakeConditioning.encode_clip, Path.replace = slow_encode, slow_replace
        encode(pipeline, root / str(step))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    left = sorted(contents(root / str(step)))
    fake.encoded.clear()
    encode(pipeline, root / str(step))
    same = contents(root / str(step)) == contents(root / "unbroken")
    report.append((os.WIFSIGNALED(status), left, len(fake.encoded), same))
print(json.dumps(report))
"""


SHARED = """
def start(rank, count, dies_at=None):
    if child := os.fork():
        return child
    ticks = iter(range(10))
    options = {"clips_per_shard": 1, "share": (rank, count)}
    encode(pipeline, root / "shared", Clips(broken={"clip 4"}), **options, on_clip=lambda: (
        next(ticks) == dies_at and os.kill(os.getpid(), signal.SIGKILL)
    ))
    os._exit(0)

report = {}
# One of three is killed in its second shard; two go on.
for name, given in (("killed", [(0, 3), (1, 3, 1), (2, 3)]), ("resumed", [(0, 2), (1, 2)])):
    children = [start(*each) for each in given]
    report[name] = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    report[name + " shards"] = len(list((root / "shared").glob("0*.safetensors")))
fake.encoded.clear()
encode(pipeline, root / "shared", clips_per_shard=1)
report["last"] = fake.encoded
report["same"] = contents(root / "shared") == contents(root / "unbroken")
print(json.dumps(report))
"""


def run_script(script: str, *arguments: object) -> Any:
    """What a script prints that knows this file."""
    here = str(Path(__file__).parent)
    done = forked.run("-c", f"import sys; sys.path[:0] = [{here!r}]\n{HEAD}{script}", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks to be killed")
def test_processes_share_the_shards_and_what_a_killed_one_left_is_done_by_others(tmp_path: Path) -> None:
    assert run_script(SHARED, tmp_path, 1) == {
        "killed": [0, -9, 0],
        # Of those of clips 1, 4 and 7, the first alone.
        "killed shards": 8,
        "resumed": [0, 0],
        "resumed shards": 9,
        # It could not be read by any of them.
        "last": ["clip 4"],
        "same": True,
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks to be killed")
def test_a_kill_at_any_step_loses_one_shard_at_most(tmp_path: Path) -> None:
    report = run_script(KILLED, tmp_path, 4)
    assert all(same for _, _, _, same in report)
    # Two renamings for the empty condition and the index, then four, four and two clips with two renamings each.
    assert [killed for killed, *_ in report] == [True] * 18 + [False] * 2
    assert [again for _, _, again, _ in report] == [10] * 8 + [6] * 6 + [2] * 4 + [0] * 2
    # Between the renamings of a shard and of the index, the shard is there and is not trusted.
    assert "00000.safetensors" in report[7][1]
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["00001.safetensors", "unconditional.safetensors"])
def test_only_a_damaged_file_is_redone(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path, damage: Any, name: str
) -> None:
    encode(pipeline, tmp_path)
    whole = contents(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(LatentCacheError, match=f"damaged: {name}: encode again"):
        LatentCache.open(tmp_path)
    conditioning.encoded.clear()
    encode(pipeline, tmp_path)
    assert conditioning.encoded == (list(Clips().names[4:8]) if name == "00001.safetensors" else [])
    assert contents(tmp_path) == whole
    LatentCache.open(tmp_path)


def test_a_shard_that_goes_while_it_is_used_is_named(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path
) -> None:
    cache = encode(pipeline, tmp_path)
    (tmp_path / "00001.safetensors").unlink()
    assert LatentCache.open(tmp_path, verify=False).names == cache.names
    assert len(cache.batch(torch.tensor([0, 9]))["latents"]) == 2
    with pytest.raises(LatentCacheError, match=r"00001.safetensors cannot be read any more"):
        cache.batch(torch.tensor([0, 5]))


@pytest.mark.parametrize("index", [b"", b"{}", b"[]", b"null", b"\xff", b'{"format": 1}', b'{"format": 2}', b"1e999"])
def test_a_damaged_index_is_refused_and_nothing_is_thrown_away(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path, index: bytes
) -> None:
    encode(pipeline, tmp_path)
    (tmp_path / "index.json").write_bytes(index)
    before = contents(tmp_path)
    for use in (LatentCache.open, lambda folder: encode(pipeline, folder)):
        with pytest.raises(LatentCacheError, match=r"index.json cannot be read .* remove the folder and encode again"):
            use(tmp_path)
    assert contents(tmp_path) == before


def test_what_is_no_cache_or_not_finished_is_refused(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LatentCacheError, match="holds no encoded clips"):
        LatentCache.open(tmp_path / "none")

    class StoppedError(Exception):
        pass

    def stop() -> None:
        if len(conditioning.encoded) == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        encode(pipeline, tmp_path, on_clip=stop)
    with pytest.raises(LatentCacheError, match=r"6 of 10 clips are not encoded yet, 'clip 4' among them"):
        LatentCache.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"identity": "another"}, "identity is 'teacher' there and 'another' here"),
        ({"settings": EncodeSettings(frames_per_second=8)}, "settings is .*7.* there and .*8.* here"),
        ({"clips_per_shard": 5}, "clips_per_shard is 4 there and 5 here"),
        ({"clips": Clips(names=tuple("abc"))}, "its 10 clips have other names or another order than these 3"),
        ({"clips": Clips(names=Clips().names[::-1])}, "its 10 clips have other names or another order than these 10"),
    ],
)
def test_another_teacher_settings_or_clips_are_refused(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path, change: Mapping[str, Any], said: str
) -> None:
    encode(pipeline, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(LatentCacheError, match=f"{said}.*: give another folder"):
        encode(pipeline, tmp_path, **change)
    assert contents(tmp_path) == before


def test_unreadable_clips_are_all_named_and_the_others_kept(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path
) -> None:
    encode(pipeline, tmp_path / "whole")
    conditioning.encoded.clear()
    # One in the first shard, the whole second one.
    broken = {"clip 2", "clip 4", "clip 5", "clip 6", "clip 7"}
    with pytest.raises(UnreadableClipsError, match=r"^5 unreadable clips") as caught:
        encode(pipeline, tmp_path / "cache", Clips(broken=broken))
    assert {problem.name for problem in caught.value.problems} == broken
    assert all(f"{name}: the file is empty" in str(caught.value) for name in broken)
    assert len(conditioning.encoded) == 5
    with pytest.raises(LatentCacheError, match="5 of 10 clips are not encoded yet, 'clip 2'"):
        LatentCache.open(tmp_path / "cache")
    # Replaced, they alone are encoded, and nothing tells that they ever were unreadable.
    conditioning.encoded.clear()
    encode(pipeline, tmp_path / "cache")
    assert set(conditioning.encoded) == broken
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_unreadable_clips_can_be_left_out(pipeline: Any, conditioning: FakeConditioning, tmp_path: Path) -> None:
    whole = encode(pipeline, tmp_path / "whole")
    broken = {"clip 2", "clip 4", "clip 5", "clip 6", "clip 7"}
    encode(pipeline, tmp_path / "cache", Clips(broken=broken), skip_unreadable=True)
    cache = LatentCache.open(tmp_path / "cache")
    assert cache.names == ("clip 0", "clip 1", "clip 3", "clip 8", "clip 9")
    found, expected = cache.batch(torch.arange(5)), whole.batch(torch.tensor([0, 1, 3, 8, 9]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # Without leave they are missing again, and what was left out stays open to read.
    with pytest.raises(UnreadableClipsError):
        encode(pipeline, tmp_path / "cache", Clips(broken=broken))
    assert LatentCache.open(tmp_path / "cache").names == cache.names
    encode(pipeline, tmp_path / "cache", skip_unreadable=True)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_nothing_readable_is_never_an_empty_cache(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableClipsError, match=r"^10 unreadable clips"):
        encode(pipeline, tmp_path, Clips(broken=set(Clips().names)), skip_unreadable=True)


def test_wrong_clips_are_refused(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clips, said in ((Clips(names=()), "0 clips"), (Clips(names=("a", "b", "a")), "'a' comes twice")):
        with pytest.raises(ValueError, match=said):
            encode(pipeline, tmp_path / "new", clips)
    with pytest.raises(ValueError, match="0 a shard"):
        encode(pipeline, tmp_path / "new", clips_per_shard=0)
    assert not (tmp_path / "new").exists()
    sizes = Clips()
    monkeypatch.setattr(sizes, "clip", lambda index: Clips(height=4 if index == 6 else 6).clip(index))
    with pytest.raises(LatentCacheError, match=r"clip 6 encodes to .*: read all at one size"):
        encode(pipeline, tmp_path / "sizes", sizes)
    encode(pipeline, tmp_path / "sizes")
    # Found by two processes at the same time.
    with pytest.raises(LatentCacheError, match=r"others to .*3, 3, 6, 4.*: read all at one size"):
        encode(
            pipeline, tmp_path / "shared", Clips(height=4), share=(1, 2),
            on_clip=lambda: encode(pipeline, tmp_path / "shared", share=(0, 2)),
        )  # fmt: skip
    with pytest.raises(LatentCacheError, match=r"clip 0: its latents are not finite: .* float32"):
        encode(pipeline, tmp_path / "infinite", settings=EncodeSettings(7, noise_strength=float("inf")))


def test_two_encoders_do_not_share_a_folder(pipeline: Any, conditioning: FakeConditioning, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(LatentCacheError, match="another process is encoding"):
        encode(pipeline, tmp_path)
    assert not conditioning.encoded
    encode(pipeline, tmp_path)


def test_no_empty_condition_is_told_from_one(pipeline: Any, conditioning: FakeConditioning, tmp_path: Path) -> None:
    conditioning.empty = False
    assert encode(pipeline, tmp_path).unconditional is None
    assert LatentCache.open(tmp_path).unconditional is None
    assert not (tmp_path / "unconditional.safetensors").exists()


def test_the_files_are_plain_safetensors(pipeline: Any, conditioning: FakeConditioning, tmp_path: Path) -> None:
    cache = encode(pipeline, tmp_path)
    assert sorted(contents(tmp_path)) == [
        *(f"0000{number}.safetensors" for number in range(3)),
        "index.json",
        "unconditional.safetensors",
    ]
    shards = [load_file(tmp_path / f"0000{number}.safetensors") for number in range(3)]
    everything = torch.cat([shard["latents"] for shard in shards])
    assert torch.equal(cache.batch(torch.arange(10))["latents"], everything)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory use from /proc")
def test_reading_needs_memory_for_the_batch_alone(
    pipeline: Any, conditioning: FakeConditioning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(pipeline: object, clip: TrainingClip, settings: EncodeSettings) -> dict[str, Tensor]:
        return {"latents": torch.full((8, 16, 64, 64), float(clip.seed))}

    monkeypatch.setattr(conditioning, "encode_clip", large)
    # 2 MiB a clip, 80 MiB in all.
    clips = Clips(names=tuple(str(number) for number in range(40)))
    encode(pipeline, tmp_path, clips, clips_per_shard=10)

    def own_memory() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) // 1024

    before = own_memory()
    cache, most = LatentCache.open(tmp_path), 0
    for index in range(40):
        assert (cache.batch(torch.tensor([index]))["latents"] == index).all()
        most = max(most, own_memory() - before)
    assert most < 20


# diffusers' image processor meets numpy 2 that way.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_a_pipeline_encodes_into_a_cache(tiny_pipeline: StableVideoDiffusionPipeline, tmp_path: Path) -> None:
    settings = EncodeSettings(frames_per_second=7, motion_bucket=63, noise_strength=0.5)
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (3, 2, 32, 32, 3), dtype=np.uint8)
    clips = Clips(names=("a", "b", "c"))
    made = [TrainingClip(name, frames[seed], seed=seed) for seed, name in enumerate(clips.names)]
    clips.clip = made.__getitem__  # type: ignore[method-assign]
    encode_to_cache(tiny_pipeline, clips, tmp_path, settings, identity="tiny", clips_per_shard=2)
    cache = LatentCache.open(tmp_path)
    assert (cache.family, cache.unconditional) == ("svd", None)
    batch = cache.batch(torch.tensor([2, 0]))
    assert batch["latents"].shape == (2, 2, 4, 4, 4)
    for place, clip in enumerate((made[2], made[0])):
        expected = CONDITIONING.encode_clip(tiny_pipeline, clip, settings)
        assert set(expected) == set(batch)
        for name, value in expected.items():
            torch.testing.assert_close(batch[name][place], value, rtol=0, atol=0)


def test_a_model_that_cannot_be_distilled_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no family knows Linear"):
        encode(SimpleNamespace(unet=torch.nn.Linear(1, 1)), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
