"""Each dimension's score of one clip: sizes and order of the official code, its formula, our networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vdmini_bench.config.vbench_dimensions import FILTERED
from vdmini_bench.data.picture import read_picture
from vdmini_bench.data.video import read_scaled
from vdmini_bench.vbench.native import frames as at
from vdmini_bench.vbench.native.amt import smoothness
from vdmini_bench.vbench.native.catalogue import STATIC
from vdmini_bench.vbench.native.clip import ClipTexts
from vdmini_bench.vbench.native.flickering import temporal_flickering
from vdmini_bench.vbench.native.frames import Clip, embed_frames
from vdmini_bench.vbench.native.musiq import fit_frames
from vdmini_bench.vbench.native.networks import Networks
from vdmini_bench.vbench.native.questions import Question
from vdmini_bench.vbench.native.raft import is_static, moves
from vdmini_bench.vbench.native.similarity import consistency, faithfulness
from vdmini_bench.vbench.native.tag2text import BEAMS
from vdmini_bench.vbench.native.viclip import middle_frames

SIDE = 224
SCENE_FRAMES, SCENE_SIDE = 16, 384


@dataclass(frozen=True)
class VideoScore:
    """One video's score in the official scale, and how much it counts in the mean over videos."""

    value: float
    weight: int = 1


def _subject_consistency(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    # The official mean is over frames: long videos count more.
    features = embed_frames(clip, networks.device, _for_dino, networks.dino)
    return VideoScore(consistency(features), len(clip.frames) - 1)


def _background_consistency(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    features = embed_frames(clip, networks.device, for_clip, networks.clip_b)
    return VideoScore(consistency(features), len(clip.frames) - 1)


def _i2v_subject(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    image = at.normalise(at.resize_image(_image_of(question), 256, SIDE), at.IMAGENET)
    of_image = networks.dino(image.to(networks.device)).cpu()
    return VideoScore(faithfulness(embed_frames(clip, networks.device, _for_dino_cropped, networks.dino), of_image))


def _i2v_background(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    image = _image_of(question).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    of_image = networks.dreamsim(at.pixels_of(image).to(networks.device)).cpu()
    features = embed_frames(clip, networks.device, partial(at.resize_square, side=SIDE), networks.dreamsim)
    return VideoScore(faithfulness(features, of_image))


def _aesthetic_quality(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    features = embed_frames(clip, networks.device, for_clip, networks.clip_l)
    return VideoScore(float(networks.aesthetic(F.normalize(features, dim=-1)).double().mean()) / 10)


def _imaging_quality(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    scores = embed_frames(clip, networks.device, fit_frames, networks.musiq, at.BATCH // 4)
    return VideoScore(float(scores.double().mean()))


def _appearance_style(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    texts, factor = networks.clip_b_texts
    wanted = read_text(question.text, texts, networks, cut=False).cpu()
    # Pictures, not tensors, in the official code: resized by Pillow.
    pixels = torch.cat([at.resize_image(Image.fromarray(frame), SIDE, SIDE).byte() for frame in clip.frames])
    resized = Clip(pixels.permute(0, 2, 3, 1).numpy(), clip.frames_per_second)
    features = embed_frames(resized, networks.device, partial(at.normalise, of=at.CLIP), networks.clip_b)
    likeness = F.cosine_similarity(features, wanted).double()
    return VideoScore(float(likeness.mean()) * factor / 100, len(clip.frames))


def _scene(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    # The official code expects sixteen captions, and repeats frames for its three beams twice: it is given those of the
    # first six frames, three times each.
    chosen = middle_frames(len(clip.frames), SCENE_FRAMES)
    seen = [chosen[place // BEAMS] for place in range(SCENE_FRAMES)]
    if question.video.suffix == ".gif":
        images = [Image.fromarray(frame) for frame in clip.frames]
        frames = [np.asarray(image.resize((SCENE_SIDE, SCENE_SIDE), Image.Resampling.BILINEAR)) for image in images]
    else:
        frames = read_scaled(question.video, SCENE_SIDE)
    places = [*dict.fromkeys(seen)]
    pixels = torch.from_numpy(np.stack([frames[place] for place in places])).permute(0, 3, 1, 2)
    captions = networks.tag2text(at.normalise(pixels.to(networks.device).float(), at.IMAGENET))
    words = question.text.split(" ")
    shows = {place: all(word in caption for word in words) for place, caption in zip(places, captions, strict=True)}
    return VideoScore(sum(shows[place] for place in seen) / SCENE_FRAMES, SCENE_FRAMES)


def _video_and_text(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    wanted = read_text(question.text, networks.viclip.text_encoder, networks, cut=True)
    return VideoScore(float(F.cosine_similarity(see_video(clip, networks), wanted)))


def see_video(clip: Clip, networks: Networks) -> Tensor:
    """What ViCLIP makes of a clip: 1 x D, not normalised; kept with the clip."""
    if "viclip" not in clip.seen:
        chosen = torch.from_numpy(clip.frames[middle_frames(len(clip.frames))]).permute(0, 3, 1, 2)
        resized = at.resize_shorter(chosen.to(networks.device).float(), SIDE, "bicubic", smooth=False)
        # These frames are whole numbers to the official code, and stay so.
        pixels = at.normalise(at.crop_centre(resized.clamp(0, 255).round(), SIDE), at.CLIP)
        clip.seen["viclip"] = networks.viclip.vision_encoder(pixels[None])
    return clip.seen["viclip"]


def read_text(text: str, texts: ClipTexts, networks: Networks, *, cut: bool) -> Tensor:
    """What CLIP or ViCLIP makes of a text: 1 x D, not normalised; too long a one is an error unless it may be `cut`."""
    return texts(networks.tokenizer.numbers(text, texts.length, cut=cut).to(networks.device))


def _image_of(question: Question) -> Image.Image:
    assert question.image is not None
    return Image.fromarray(read_picture(question.image))


def _for_dino(pixels: Tensor) -> Tensor:
    return at.normalise(at.resize_shorter(pixels, SIDE, "bilinear", smooth=False), at.IMAGENET)


def _for_dino_cropped(pixels: Tensor) -> Tensor:
    return at.normalise(at.crop_centre(at.resize_shorter(pixels, 256, "bicubic", smooth=True), SIDE), at.IMAGENET)


def for_clip(pixels: Tensor) -> Tensor:
    """Frames N 3 H W of 0 to 255 as CLIP takes them: N 3 224 224, normalised."""
    return at.normalise(at.crop_centre(at.resize_shorter(pixels, SIDE, "bicubic", smooth=False), SIDE), at.CLIP)


SCORERS: dict[str, Callable[[Clip, Question, Networks], VideoScore]] = {
    "subject_consistency": _subject_consistency,
    "background_consistency": _background_consistency,
    FILTERED: lambda clip, _, __: VideoScore(temporal_flickering(clip.frames)),
    "motion_smoothness": lambda clip, _, of: VideoScore(smoothness(clip, of.amt, of.device)),
    "dynamic_degree": lambda clip, _, of: VideoScore(float(moves(clip, of.raft, of.device))),
    "aesthetic_quality": _aesthetic_quality,
    "imaging_quality": _imaging_quality,
    "scene": _scene,
    "appearance_style": _appearance_style,
    "temporal_style": _video_and_text,
    "overall_consistency": _video_and_text,
    "i2v_subject": _i2v_subject,
    "i2v_background": _i2v_background,
    STATIC: lambda clip, _, of: VideoScore(float(is_static(clip, of.raft, of.device))),
}
