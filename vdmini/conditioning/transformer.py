"""How clips are fed to any video transformer, and its first half as an encoder.

The encoder is a view that shares the denoiser's weights and hooks none of its modules; with gradient checkpointing in
the denoiser, the encoder checkpoints as well.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vdmini.blocks import ModelInput
from vdmini.conditioning import Conditioning
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.pixels import channel_values, clip_pixels, encode_video
from vdmini.models.transformer import TransformerFamily

MAPS = 4


class TransformerConditioning(Conditioning):
    """Latents of a causal video VAE, and what the pipeline's `encode_prompt` gives, in the order of `texts`.

    A pipeline that animates images also gives what it makes of a clip's first frame, one of two kinds: "condition"
    T C H W comes beside the latents, over channels; "first_frame" 1 C H W comes before them, and they begin after it.
    "frame_times" T says that every token has its timestep: 1 for the clip's, 0 for that of a frame without noise.
    """

    family: TransformerFamily
    # The number format in which the pipeline prepares latents of an image, None for its VAE's.
    image_dtype: torch.dtype | None = torch.float32

    @torch.no_grad()
    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """Encode a clip and its prompt as the pipeline does; raises ValueError as `clip_pixels` does.

        "latents" T C H W are VAE means, normalised by the VAE's own mean and deviation of each channel where it has
        these, times its scaling factor where it has one. Noise that the pipeline draws for the first frame comes from
        the clip's seed.
        """
        run: Any = pipeline
        stride, multiple = self.family.clip_steps(pipeline)
        pixels = clip_pixels(clip, multiple=multiple, frame_stride=stride)
        latents = encode_video(run.vae, pixels.to(run._execution_device))
        # LTX-Video's VAE has its mean and deviation among its weights.
        known = {**run.vae.config, **dict(run.vae.named_buffers())}
        if known.get("latents_mean") is not None and known.get("latents_std") is not None:
            latents = (latents - channel_values(known["latents_mean"])) / channel_values(known["latents_std"])
        latents = latents * known.get("scaling_factor", 1.0)
        picture = Image.fromarray(clip.frames[0]) if animates(run) else None
        encoded = {"latents": latents, **self.encode_prompt(pipeline, clip.prompt, picture)}
        if picture is not None:
            frames, height, width = clip.frames.shape[:3]
            image = run.video_processor.preprocess(picture, height=height, width=width)
            prepared = run.prepare_latents(
                image=image.to(run._execution_device, run.vae.dtype), batch_size=1,
                num_channels_latents=latents.shape[1], height=height, width=width, num_frames=frames,
                dtype=self.image_dtype or run.vae.dtype, device=run._execution_device,
                generator=torch.Generator().manual_seed(clip.seed),
            )  # fmt: skip
            conditions = self.image_conditions(run, picture, prepared, latents)
            encoded |= {name: value.float().cpu().contiguous() for name, value in conditions.items()}
        still = len(encoded.get("first_frame", ()))
        if still == len(latents):
            raise ValueError(f"clip {clip.name!r} has no latents beyond its first frame's: give {stride + 1} frames")
        encoded["latents"] = latents[still:].contiguous()
        if self.times_frames(run):
            encoded["frame_times"] = torch.tensor([0.0] * still + [1.0] * (len(latents) - still))
        return encoded

    def image_conditions(self, run: Any, picture: Image.Image, prepared: Any, latents: Tensor) -> dict[str, Tensor]:
        """The conditions in what `prepare_latents` returned for the first frame of a clip of `latents` T C H W."""
        return {"condition": self.frames_of(prepared[1])}

    def frames_of(self, latents: Tensor) -> Tensor:
        """The only clip of a pipeline's latents: T C H W."""
        return latents[0] if self.family.frames_first else latents[0].transpose(0, 1)

    def times_frames(self, run: Any) -> bool:
        """Whether a pipeline gives its denoiser a timestep for each token."""
        return False

    @torch.no_grad()
    def encode_prompt(
        self, pipeline: DiffusionPipeline, prompt: str, picture: Image.Image | None = None
    ) -> dict[str, Tensor]:
        run: Any = pipeline
        values = run.encode_prompt(prompt=[prompt], device=run._execution_device, **self.prompt_options(run, picture))
        # Pipelines return more, for guidance.
        named = zip(self.texts, values, strict=False)
        return {name: value[0].float().cpu().contiguous() for name, value in named}

    def prompt_options(self, run: Any, picture: Image.Image | None) -> Mapping[str, object]:
        """More arguments of the pipeline's `encode_prompt`, where a clip is made from a picture."""
        return {"do_classifier_free_guidance": False}

    def clip_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """Where the network takes more channels than it returns, these are the condition's."""
        config: Any = denoiser.config
        shapes = super().clip_shapes(denoiser, size)
        channels = config.get("out_channels") or config.in_channels
        if more := config.in_channels - channels:
            shapes["latents"] = (size.frames, channels, size.height, size.width)
            shapes["condition"] = (size.frames, more, size.height, size.width)
        return shapes

    def denoiser_inputs(
        self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        dtype: Any = denoiser.dtype
        if "condition" in conditions:
            latents = torch.cat([latents, conditions["condition"].to(latents)], dim=2)
        if "first_frame" in conditions:
            latents = torch.cat([conditions["first_frame"].to(latents), latents], dim=1)
        if "frame_times" in conditions:
            _, rows, columns = self.family.patch(denoiser)
            tokens = latents.shape[3] // rows * (latents.shape[4] // columns)
            timesteps = (timesteps[:, None] * conditions["frame_times"]).repeat_interleave(tokens, dim=1)
        inputs = {
            "hidden_states": (latents if self.family.frames_first else latents.transpose(1, 2)).to(dtype),
            "timestep": timesteps,
            **{argument: conditions[name].to(dtype) for name, argument in self.arguments.items() if name in conditions},
        }
        return self.finish(inputs, denoiser, conditions)

    def finish(self, inputs: dict[str, Any], denoiser: nn.Module, conditions: Mapping[str, Tensor]) -> dict[str, Any]:
        """The denoiser's inputs with what this family's has beside those of all."""
        return inputs

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        video: Tensor = output.sample if self.family.frames_first else output.sample.transpose(1, 2)
        return video[:, -latents.shape[1] :]

    def latent_size(self, inputs: Mapping[str, Any]) -> tuple[int, int, int]:
        """Frames, height and width of the latents in the denoiser's inputs."""
        _, first, second, height, width = inputs["hidden_states"].shape
        return first if self.family.frames_first else second, height, width

    def encoder_channels(self, denoiser: nn.Module) -> tuple[int, ...]:
        """The width of the denoiser, at most four times."""
        return (self.family.width(denoiser),) * len(_tapped(encoder_view(denoiser, self.family), self.family))

    def encoder_features(self, denoiser: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
        """What at most four evenly spaced blocks of the first half make of the video tokens: maps (B T) C H W.

        Height and width are in patches. No block of the second half runs; the output layers do, on what the first half
        made, and nobody reads their result: they are less than a ten-thousandth of the work.
        """
        view = encoder_view(denoiser, self.family)
        recorded: dict[int, Tensor] = {}
        blocks = _tapped(view, self.family)
        handles = [_record(block, position, recorded) for position, block in enumerate(blocks)]
        try:
            view(**inputs)
        finally:
            # Gradient checkpointing keeps the blocks until the backward pass, and runs them again there.
            for handle in handles:
                handle.remove()
        sizes = self.latent_size(inputs)
        grid = [size // patch for size, patch in zip(sizes, self.family.patch(denoiser), strict=True)]
        # Tokens run through a clip frame by frame, row by row.
        maps = [recorded[position].unflatten(1, grid) for position in range(len(blocks))]
        return [each.permute(0, 1, 4, 2, 3).flatten(0, 1) for each in maps]


def animates(run: Any) -> bool:
    """Whether a pipeline makes clips from images."""
    return "image" in inspect.signature(run.prepare_latents).parameters


def mean_of_tokens(embeddings: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens B N E that a mask B N keeps: B E float32."""
    kept = mask.float()
    return (embeddings.float() * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp(min=1)


def encoder_view(denoiser: nn.Module, family: TransformerFamily) -> nn.Module:
    """The denoiser with only the first half of its blocks, in the order they run, over all stacks; at least one.

    It shares every weight and buffer of what it holds. Hooks on the denoiser and on its blocks themselves stay there,
    so who listens to the denoiser does not hear this view.
    """
    total = sum(len(getattr(denoiser, stack.attribute)) for stack in family.stacks)
    left = max(1, total // 2)
    view = _sharing(denoiser)
    # Whatever wraps this denoiser's own forward would run the whole of it.
    vars(view).pop("forward", None)
    for stack in family.stacks:
        held = [*getattr(denoiser, stack.attribute)][:left]
        setattr(view, stack.attribute, nn.ModuleList(_sharing(block) for block in held))
        left -= len(held)
    return view


def _sharing(module: nn.Module) -> nn.Module:
    """A module of the same submodules, weights and buffers, whose list of submodules and whose hooks are its own."""
    shared = copy.copy(module)
    fresh = vars(nn.Module())
    vars(shared).update({name: value for name, value in fresh.items() if "hooks" in name})
    shared._modules = {**module._modules}
    return shared


def _tapped(view: nn.Module, family: TransformerFamily) -> list[nn.Module]:
    blocks = [block for stack in family.stacks for block in getattr(view, stack.attribute)]
    wanted = min(MAPS, len(blocks))
    return [blocks[len(blocks) * count // wanted - 1] for count in range(1, wanted + 1)]


def _record(block: nn.Module, position: int, recorded: dict[int, Tensor]) -> RemovableHandle:
    def record(module: nn.Module, inputs: tuple[object, ...], output: Any) -> None:
        # Blocks with a stream of text return it after that of the video.
        recorded[position] = output[0] if isinstance(output, tuple) else output

    return block.register_forward_hook(record)
