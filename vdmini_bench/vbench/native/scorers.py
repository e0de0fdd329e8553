"""Each dimension's score of one clip: sizes and order of the official code, its formula, our networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vdmini_bench.config.vbench_dimensions import FILTERED
from vdmini_bench.data.picture import read_picture
from vdmini_bench.vbench.native import frames as at
from vdmini_bench.vbench.native.amt import smoothness
from vdmini_bench.vbench.native.catalogue import STATIC
from vdmini_bench.vbench.native.flickering import temporal_flickering
from vdmini_bench.vbench.native.frames import Clip, embed_frames
from vdmini_bench.vbench.native.musiq import fit_frames
from vdmini_bench.vbench.native.networks import Networks
from vdmini_bench.vbench.native.questions import Question
from vdmini_bench.vbench.native.raft import is_static, moves
from vdmini_bench.vbench.native.similarity import consistency, faithfulness
from vdmini_bench.vbench.native.viclip import middle_frames

# Frames at a time. Larger batches are slower on a CPU, whose caches they leave, and a GPU is busy with these.
BATCH = 8
SIDE = 224


@dataclass(frozen=True)
class VideoScore:
    """One video's score in the official scale, and how much it counts in the mean over videos."""

    value: float
    weight: int = 1


def _subject_consistency(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    def shrink(pixels: Tensor) -> Tensor:
        resized = at.resize_shorter(pixels.to(networks.device), SIDE, "bilinear", smooth=False)
        return at.normalise(resized, at.IMAGENET)

    # The official mean is over frames: long videos count more.
    return VideoScore(consistency(embed_frames(clip, shrink, networks.dino, BATCH)), len(clip.frames) - 1)


def _background_consistency(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    features = embed_frames(clip, _for_clip(networks), networks.clip_b, BATCH)
    return VideoScore(consistency(features), len(clip.frames) - 1)


def _i2v_subject(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    def shrink(pixels: Tensor) -> Tensor:
        resized = at.resize_shorter(pixels.to(networks.device), 256, "bicubic", smooth=True)
        return at.normalise(at.crop_centre(resized, SIDE), at.IMAGENET)

    assert question.image is not None
    image = Image.fromarray(read_picture(question.image))
    with torch.inference_mode():
        pixels = at.normalise(at.resize_image(image, 256, SIDE), at.IMAGENET)
        of_image = networks.dino(pixels.to(networks.device)).cpu()
    return VideoScore(faithfulness(embed_frames(clip, shrink, networks.dino, BATCH), of_image))


def _i2v_background(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    def shrink(pixels: Tensor) -> Tensor:
        return at.resize_square(pixels.to(networks.device), SIDE)

    assert question.image is not None
    image = Image.fromarray(read_picture(question.image))
    with torch.inference_mode():
        of_image = networks.dreamsim(at.resize_image_square(image, SIDE).to(networks.device)).cpu()
    return VideoScore(faithfulness(embed_frames(clip, shrink, networks.dreamsim, BATCH), of_image))


def _aesthetic_quality(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    features = embed_frames(clip, _for_clip(networks), networks.clip_l, BATCH)
    with torch.inference_mode():
        return VideoScore(float(networks.aesthetic(F.normalize(features, dim=-1)).double().mean()) / 10)


def _imaging_quality(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    def shrink(pixels: Tensor) -> Tensor:
        return fit_frames(pixels.to(networks.device))

    return VideoScore(float(embed_frames(clip, shrink, networks.musiq, BATCH // 4).double().mean()))


def _appearance_style(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    texts, factor = networks.clip_b_texts
    with torch.inference_mode():
        numbers = networks.tokenizer.numbers(question.text, texts.length, cut=False)
        wanted = texts(numbers.to(networks.device)).cpu()
    # Pictures, not tensors, in the official code: resized by Pillow.
    frames = np.concatenate(
        [
            at.resize_image(Image.fromarray(frame), SIDE, SIDE).byte().permute(0, 2, 3, 1).numpy()
            for frame in clip.frames
        ]
    )

    def normalise(pixels: Tensor) -> Tensor:
        return at.normalise(pixels.to(networks.device), at.CLIP)

    features = embed_frames(Clip(frames, clip.frames_per_second), normalise, networks.clip_b, BATCH)
    likeness = F.cosine_similarity(features, wanted).double()
    return VideoScore(float(likeness.mean()) * factor / 100, len(clip.frames))


def _video_and_text(clip: Clip, question: Question, networks: Networks) -> VideoScore:
    with torch.inference_mode():
        if "viclip" not in clip.seen:
            clip.seen["viclip"] = networks.viclip.vision_encoder(_for_viclip(clip, networks))
        seen, texts = clip.seen["viclip"], networks.viclip.text_encoder
        numbers = networks.tokenizer.numbers(question.text, texts.length, cut=True)
        return VideoScore(float(F.cosine_similarity(seen, texts(numbers.to(networks.device)))))


def _for_viclip(clip: Clip, networks: Networks) -> Tensor:
    chosen = torch.from_numpy(clip.frames[middle_frames(len(clip.frames))]).permute(0, 3, 1, 2).float()
    resized = at.resize_shorter(chosen.to(networks.device), SIDE, "bicubic", smooth=False)
    # These frames are whole numbers to the official code, and stay so.
    return at.normalise(at.crop_centre(resized.clamp(0, 255).round(), SIDE), at.CLIP)[None]


def _for_clip(networks: Networks) -> Callable[[Tensor], Tensor]:
    def shrink(pixels: Tensor) -> Tensor:
        resized = at.resize_shorter(pixels.to(networks.device), SIDE, "bicubic", smooth=False)
        return at.normalise(at.crop_centre(resized, SIDE), at.CLIP)

    return shrink


SCORERS: dict[str, Callable[[Clip, Question, Networks], VideoScore]] = {
    "subject_consistency": _subject_consistency,
    "background_consistency": _background_consistency,
    FILTERED: lambda clip, question, of: VideoScore(temporal_flickering(clip.frames)),
    "motion_smoothness": lambda clip, question, of: VideoScore(smoothness(clip, of.amt, of.device)),
    "dynamic_degree": lambda clip, question, of: VideoScore(float(moves(clip, of.raft, of.device))),
    "aesthetic_quality": _aesthetic_quality,
    "imaging_quality": _imaging_quality,
    "appearance_style": _appearance_style,
    "temporal_style": _video_and_text,
    "overall_consistency": _video_and_text,
    "i2v_subject": _i2v_subject,
    "i2v_background": _i2v_background,
    STATIC: lambda clip, question, of: VideoScore(float(is_static(clip, of.raft, of.device))),
}
