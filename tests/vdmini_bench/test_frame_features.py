from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vdmini import importance
from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.metrics.content import content_distance, spectrum_distance
from vdmini_bench.metrics.frame_features import (
    LAYERS,
    FrameNetwork,
    NetworkFeatures,
    StillI3d,
    load_frame_network,
)
from vdmini_bench.metrics.i3d import InceptionI3d
from vdmini_bench.studies.corruptions import at_speed, blur, noise, recolour


@pytest.fixture(scope="module")
def network(i3d_weights: Path) -> FrameNetwork:
    return load_frame_network()


def test_a_frame_is_seen_as_i3d_sees_it_held_still() -> None:
    torch.manual_seed(0)
    video = InceptionI3d().requires_grad_(False)
    for module in video.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean = torch.randn_like(module.bias) * 0.1
            module.running_var = torch.rand_like(module.bias) + 0.5
            module.bias.copy_(torch.randn_like(module.bias) * 0.1)
    frame = torch.randint(0, 256, (1, 3, 100, 90), dtype=torch.uint8)
    # Long enough that the middle of the clip is seen by no kernel that reaches over its ends.
    whole = nn.functional.interpolate(frame.float(), (112, 112), mode="bilinear", antialias=True)
    hidden = (whole / 127.5 - 1)[:, :, None].expand(-1, -1, 41, -1, -1)
    expected = []
    with torch.inference_mode():
        for name, layer in video.layers.named_children():
            hidden = layer(hidden)
            if name in LAYERS:
                middle = hidden[0, :, hidden.shape[2] // 2].mean(dim=(1, 2))
                expected.append(middle / middle.norm() / 3**0.5)
        found = StillI3d(video)(frame)[0]
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)


def test_frames_are_seen_one_by_one_in_any_company(network: FrameNetwork) -> None:
    clip = draw_clip("Spin", 1, 1).frames
    whole = NetworkFeatures(network)(clip)
    assert whole.shape == (10, 1184)
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1, abs=1e-5)
    assert NetworkFeatures(network)(clip[4:7]) == pytest.approx(whole[4:7], abs=1e-6)
    assert NetworkFeatures(network)(clip[::-1])[::-1] == pytest.approx(whole, abs=1e-6)


def test_large_frames_are_seen_in_detail(network: FrameNetwork) -> None:
    random = np.random.default_rng(0)
    large = random.integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    small = large[:, ::2, ::2]
    # Noise a pixel wide would be gone had the large frame been brought to the small one's size.
    assert content_distance(*(NetworkFeatures(network)(each) for each in (large, small))) < 0.4


def test_content_distance_knows_content_from_motion(network: FrameNetwork) -> None:
    time = 0.5 + np.arange(-36, 37) / 36
    random = np.random.default_rng(0)
    for action, other in (("Orbit", "Fall"), ("Sway", "Grow")):
        footage = draw_clip(action, 2, 1, time).frames
        clip = at_speed(footage, 1, 10)
        features = NetworkFeatures(network)(clip)

        def far(changed: np.ndarray, features: np.ndarray = features) -> float:
            return content_distance(features, NetworkFeatures(network)(changed))

        # Half a frame late: at no place as it was, and nothing else shown.
        late = footage[20::4][:10]
        unrelated = far(draw_clip(other, 5, 2).frames)
        assert far(clip) == 0
        assert far(late) < 0.15 * unrelated
        assert far(recolour(clip, 60, random)) > 3 * far(late)
        assert far(blur(clip, 0.5, random)) < far(blur(clip, 1, random)) < far(blur(clip, 2, random))
        assert far(noise(clip, 4, random)) < far(noise(clip, 16, random))
        assert far(late) == pytest.approx(content_distance(NetworkFeatures(network)(late), features))


def test_the_spectrum_is_that_of_block_importance() -> None:
    clip, other = draw_clip("Orbit", 2, 1).frames, draw_clip("Orbit", 3, 1).frames
    assert spectrum_distance(clip, other) == pytest.approx(
        importance.content_distance(clip[None], other[None]), rel=1e-5
    )
    assert spectrum_distance(clip, np.roll(clip, 5, axis=2)) == pytest.approx(0, abs=1e-9)


def test_features_name_their_network(network: FrameNetwork) -> None:
    clip = draw_clip("Orbit", 2, 1).frames
    see = NetworkFeatures(network)
    assert see.version == "i3d-kinetics400-still-1"
    assert (see(clip) == NetworkFeatures(network)(clip)).all()


def test_what_does_not_pair_or_is_no_clip_is_refused(network: FrameNetwork) -> None:
    features = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="do not pair"):
        content_distance(features, features[:2])
    with pytest.raises(ValueError, match="do not pair"):
        spectrum_distance(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="T H W 3"):
        NetworkFeatures(network)(np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="take i3d or inception"):
        load_frame_network("vgg")
