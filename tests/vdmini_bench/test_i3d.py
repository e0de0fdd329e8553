from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from vdmini_bench.assets.i3d_checkpoint import read_original_weights
from vdmini_bench.metrics.fvd import load_i3d
from vdmini_bench.metrics.i3d import ConvolutionUnit, InceptionI3d, MaxPoolSame, Triple, pad_same


@pytest.fixture(scope="module")
def network(i3d_weights: Path) -> InceptionI3d:
    model = InceptionI3d()
    model.load_state_dict(load_file(i3d_weights))
    return model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def test_logits_equal_the_original(network: InceptionI3d, golden: Path) -> None:
    vectors = np.load(golden / "i3d_kinetics400.npz")
    video = torch.from_numpy(vectors["video"]).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.inference_mode():
        logits = network(video.permute(0, 4, 1, 2, 3).float() / 127.5 - 1)
    assert logits.shape == (2, 400)
    assert np.abs(logits.numpy() - vectors["logits"]).max() < 1e-4


def test_folded_logits_equal_the_original(i3d_weights: Path, golden: Path) -> None:
    folded = load_i3d()
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    vectors = np.load(golden / "i3d_kinetics400.npz")
    video = torch.from_numpy(vectors["video"]).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.inference_mode():
        logits = folded(video.permute(0, 4, 1, 2, 3).float() / 127.5 - 1)
    assert np.abs(logits.numpy() - vectors["logits"]).max() < 1e-4


def test_a_folded_unit_is_the_same_function() -> None:
    torch.manual_seed(0)
    unit = ConvolutionUnit(5, 7, (3, 3, 3), (2, 2, 2)).eval().requires_grad_(False)
    norm = unit.norm
    assert isinstance(norm, torch.nn.BatchNorm3d)
    for values in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(values)  # type: ignore[arg-type]
    torch.nn.init.uniform_(norm.running_var, 1e-4, 2)  # type: ignore[arg-type]
    clip = torch.randn(2, 5, 9, 10, 11)
    before = unit(clip)
    unit.fold_norm()
    unit.fold_norm()
    assert torch.allclose(unit(clip), before, rtol=1e-4, atol=1e-5)
    assert before.min() == 0
    assert before.max() > 1


def test_nine_frames_are_enough(network: InceptionI3d) -> None:
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 9, 224, 224)).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 224, 224), "8 frames: I3D needs at least 9"),
        ((1, 3, 16, 112, 112), "B 3 T 224 224"),
        ((1, 16, 3, 224, 224), "B 3 T 224 224"),
        ((3, 16, 224, 224), "B 3 T 224 224"),
    ],
)
def test_refuses_bad_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InceptionI3d()(torch.zeros(shape))


def test_refuses_bytes() -> None:
    with pytest.raises(ValueError, match="uint8"):
        InceptionI3d()(torch.zeros(1, 3, 9, 224, 224, dtype=torch.uint8))


def test_same_padding_by_hand() -> None:
    # Six places, window 3, stride 2: three outputs span 7, so one place is missing, and it goes to the end.
    row = torch.tensor([[[[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]]]])
    padded = pad_same(row, (1, 1, 3), (1, 1, 2), value=9.0)
    assert padded.flatten().tolist() == [1, 2, 3, 4, 5, 6, 9]
    # Window 7, stride 2: three outputs span 11, five are missing, two before and three after.
    padded = pad_same(row, (1, 1, 7), (1, 1, 2), value=0.0)
    assert padded.flatten().tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0]
    # Each axis gets its own: T 2 -> 3 under window 3 and stride 2, H 1 -> 3 under window 3 and stride 1.
    assert pad_same(torch.zeros(1, 1, 2, 1, 6), (3, 3, 1), (2, 1, 1), value=0.0).shape == (1, 1, 3, 3, 6)


def test_max_pooling_ignores_padding() -> None:
    row = -torch.tensor([[[[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]]]])
    assert MaxPoolSame((1, 1, 3), (1, 1, 2))(row).flatten().tolist() == [-1, -3, -5]
    assert MaxPoolSame((3, 3, 3), (1, 1, 1))(row).flatten().tolist() == [-1, -1, -2, -3, -4, -5]


SIDES = st.integers(1, 12)
# Those of the network.
POOLS = [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]


@given(st.tuples(SIDES, SIDES, SIDES), st.sampled_from(POOLS))
def test_max_pooling_pads_as_the_convolutions_do(size: tuple[int, int, int], pool: tuple[Triple, Triple]) -> None:
    kernel, stride = pool
    video = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))
    padded = pad_same(video, kernel, stride, value=-torch.inf)
    pooled = MaxPoolSame(kernel, stride)(video)
    assert torch.equal(pooled, torch.nn.functional.max_pool3d(padded, kernel, stride))
    assert pooled.shape[2:] == tuple(-(-side // step) for side, step in zip(size, stride, strict=True))


def test_convolution_unit_by_hand() -> None:
    unit = ConvolutionUnit(1, 1, (1, 1, 3), (1, 1, 2)).eval()
    torch.nn.init.ones_(unit.convolution.weight)
    row = torch.tensor([[[[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]]]])
    # Sums of (1 2 3), (3 4 5), (5 6 padding), divided by the root of the variance 1 plus 1e-3.
    expected = torch.tensor([6.0, 12.0, 11.0]) / 1.001**0.5
    assert torch.allclose(unit(row).flatten(), expected)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch should_not_exist",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_refuses_a_pickle_that_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps({"params": Malicious()}, protocol=protocol))
    with pytest.raises(pickle.UnpicklingError, match=r"(posix|nt)\.system"):
        read_original_weights(path)
    assert not (tmp_path / "should_not_exist").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "numpy.load", "numpy.core.multiarray.fromfile", "numpy.ndarray.tofile", "numpy.dtype.__class__"],
)
def test_refuses_every_other_global(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "weights.ckpt"
    stream = io.BytesIO()
    stream.write(b"\x80\x04")
    for text in (module, attribute):
        stream.write(b"\x8c" + bytes([len(text)]) + text.encode())
    stream.write(b"\x93.")
    path.write_bytes(stream.getvalue())
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        read_original_weights(path)


@pytest.mark.parametrize("attribute", ["__class__", "tofile.__call__", "newbyteorder"])
def test_refuses_dotted_names_under_allowed_modules(tmp_path: Path, attribute: str) -> None:
    path = tmp_path / "weights.ckpt"
    dotted = f"ndarray.{attribute}".encode()
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(dotted)]) + dotted + b"\x93.")
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        read_original_weights(path)


def test_refuses_a_truncated_file(tmp_path: Path) -> None:
    content = pickle.dumps({"params": {"Conv3d_1a_7x7": {"Conv_0": {"kernel": [0.0] * 1000}}}})
    path = tmp_path / "weights.ckpt"
    for size in (0, 1, 20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(pickle.UnpicklingError):
            read_original_weights(path)


@pytest.mark.parametrize("tree", [[], {"a": 1}, {"params": {"x": {"Conv_9": {"kernel": 1.0}}}}, 3])
def test_refuses_another_tree(tmp_path: Path, tree: object) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps(tree))
    with pytest.raises(pickle.UnpicklingError, match="not the I3D weights"):
        read_original_weights(path)
