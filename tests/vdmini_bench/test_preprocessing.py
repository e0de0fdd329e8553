from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from vdmini_bench.data.preprocessing import CHAINS, centre_crop, preprocess_clip


def noise(height: int, width: int, frames: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_a_centre_keeps_an_odd_pixel_at_the_end() -> None:
    clip = np.arange(5 * 6, dtype=np.uint8).reshape(1, 5, 6, 1)
    assert centre_crop(clip, 3, 2)[0, :, :, 0].tolist() == [[7, 8, 9], [13, 14, 15]]
    with pytest.raises(ValueError, match="frames of 6x5 hold no centre of 7x5"):
        centre_crop(clip, 7, 5)


def test_stylegan_v_crops_the_square_before_it_resizes() -> None:
    clip = noise(240, 320)
    found = preprocess_clip(clip, "square-256-lanczos")
    expected = Image.fromarray(clip[1][:, 40:280]).resize((256, 256), Image.Resampling.LANCZOS)
    assert found.shape == (2, 256, 256, 3)
    assert (found[1] == np.asarray(expected)).all()


def test_stable_video_diffusion_keeps_a_real_clip_and_shrinks_a_generated_one() -> None:
    real = noise(240, 320)
    assert (preprocess_clip(real, "short-side-240-crop-320x240") == real).all()
    generated = noise(320, 576)
    frames = torch.from_numpy(generated).permute(0, 3, 1, 2).float()
    small = functional.interpolate(frames, (240, 432), mode="bilinear", align_corners=False, antialias=True)
    expected = small[:, :, :, 56:376].round().permute(0, 2, 3, 1).numpy()
    assert (preprocess_clip(generated, "short-side-240-crop-320x240") == expected).all()


@pytest.mark.parametrize(
    ("height", "width", "resized", "crop"),
    [(240, 320, (256, 342), (0, 43)), (320, 240, (342, 256), (43, 0)), (32, 32, (256, 256), (0, 0))],
)
def test_cd_fvd_scales_the_short_side_in_unit_range_and_truncates(
    height: int, width: int, resized: tuple[int, int], crop: tuple[int, int]
) -> None:
    clip = noise(height, width)
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255.0
    large = functional.interpolate(frames, resized, mode="bilinear", align_corners=False, antialias=True)
    top, left = crop
    expected = (large[:, :, top : top + 256, left : left + 256] * 255).byte().permute(0, 2, 3, 1).numpy()
    assert (preprocess_clip(clip, "short-side-256-crop-square") == expected).all()


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 33), (33, 17), (500, 13)])
def test_every_size_comes_out_as_one(chain: str, height: int, width: int) -> None:
    found = CHAINS[chain](noise(height, width))
    assert found.dtype == np.uint8
    assert found.shape == (2, *((240, 320) if "320x240" in chain else (256, 256)), 3)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_grey_clip_stays_grey(chain: str) -> None:
    for level in (0, 1, 100, 254, 255):
        found = CHAINS[chain](np.full((1, 100, 150, 3), level, dtype=np.uint8))
        # Truncation may lose a step where 255ths are not exact.
        assert np.abs(found.astype(int) - level).max() <= 1
