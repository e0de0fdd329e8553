"""Make a pipeline faster without changing what it draws: only exact measures, or ones that differ by rounding alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vdmini.attention_kernels import fastest_first, preferring
from vdmini.models.registry import family_of, pipeline_denoiser

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

# What the measures may change of a denoiser's output, of its largest entry: sums are taken in another order. Compiled
# code rounds less often in the small formats.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}


def slices(vae: Any) -> bool:
    """Whether a VAE can decode a batch clip by clip.

    EasyAnimate's would take the end of one clip for the beginning of the next, and LTX's gives each clip the timesteps
    of all where it has any.
    """
    from diffusers import AutoencoderKLMagvit

    if not hasattr(vae, "use_slicing") or isinstance(vae, AutoencoderKLMagvit):
        return False
    return not vae.config.get("timestep_conditioning")


@dataclass(frozen=True)
class Optimization:
    """What `optimize` changed, and how to take it back; `tolerance` holds for one pass of the denoiser."""

    measures: tuple[str, ...]
    tolerance: float
    undo: Callable[[], None]

    def __str__(self) -> str:
        return ", ".join(self.measures) or "nothing"


def optimize(pipeline: DiffusionPipeline | nn.Module, *, compiled: bool = False) -> Optimization:
    """Speed up a pipeline, or a denoiser alone, in place.

    - Queries, keys and values of self-attention come from one product; the weights stay in memory once.
    - HunyuanVideo reads no padding of its text, for one clip at a time, and so needs no mask, which keeps the fast
      kernels of attention away.
    - On a GPU in a small format, attention tries the kernels in the order of the time that each was seen to take there,
      and a UNet's and its VAE's convolutions get channels-last weights.
    - VAEs decode a frame or a clip at a time where they can: less memory, the same pixels.
    - With `compiled`, torch compiles the repeated blocks of HunyuanVideo, Wan and LTX-Video, and whole passes of the
      others; the first passes of each size then take minutes.

    A pass of the denoiser changes by no more than `TOLERANCES` of its largest output for its dtype. Compare a teacher
    and a student only where both are optimized, or neither. Call `undo` before saving: fused weights have other names.
    Raises ModelLoadError where there is no denoiser that a family knows.
    """
    denoiser = pipeline if isinstance(pipeline, nn.Module) else pipeline_denoiser(pipeline)
    family = family_of(denoiser)
    vae: Any = None if isinstance(pipeline, nn.Module) else getattr(pipeline, "vae", None)
    undo: list[Callable[[], None]] = []
    measures = []
    if fused := _fuse_projections(denoiser, undo):
        measures.append(f"{fused} fused projections")
    if family.cuts_text:
        _drop_text_padding(denoiser, undo)
        measures.append("text without padding")
    weight = next(denoiser.parameters())
    small_on_gpu = weight.is_cuda and weight.dtype in (torch.float16, torch.bfloat16)
    if small_on_gpu and family.convolves_frames:
        part: Any
        for part in (denoiser, vae):
            if part is not None:
                arrange(part, torch.channels_last)
                undo.append(partial(arrange, part, torch.contiguous_format))
        measures.append("channels-last convolutions")
    if vae is not None and slices(vae) and not vae.use_slicing:
        vae.enable_slicing()
        undo.append(vae.disable_slicing)
        measures.append("VAE decode a frame or clip at a time")
    if compiled:
        undo.append(compile_denoiser(denoiser))
        measures.append("compiled")
    if small_on_gpu:
        order = fastest_first(weight.device, weight.dtype, _head_dim(denoiser))
        if order:
            # Around what is compiled, which takes the kernel that is preferred when it is traced.
            undo.append(_replace_forward(denoiser, preferring(order, denoiser.forward)))
            measures.append("attention by " + ", ".join(backend.name.partition("_")[0].lower() for backend in order))

    def undo_all() -> None:
        while undo:
            undo.pop()()

    return Optimization(tuple(measures), TOLERANCES[weight.dtype], undo_all)


def compile_denoiser(denoiser: nn.Module) -> Callable[[], None]:
    """Have torch compile the blocks that a transformer says it repeats, or else the whole pass; the result undoes it.

    Hooks on the denoiser itself stay outside what is compiled.
    """
    net: Any = denoiser
    if getattr(net, "_repeated_blocks", None):
        net.compile_repeated_blocks()
        return partial(_forget_compiled, net)
    return _replace_forward(net, torch.compile(net.forward))


def arrange(network: nn.Module, layout: torch.memory_format) -> None:
    """Lay out the weights of two-dimensional convolutions; those over time have five dimensions and no such layout."""
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=layout)


def _replace_forward(net: Any, forward: Callable[..., Any]) -> Callable[[], None]:
    before = vars(net).get("forward")
    net.forward = forward
    return partial(delattr, net, "forward") if before is None else partial(setattr, net, "forward", before)


def _head_dim(denoiser: nn.Module) -> int:
    """The size of most heads of a denoiser's attention."""
    modules: list[Any] = [each for each in denoiser.modules() if hasattr(each, "inner_dim") and hasattr(each, "heads")]
    return statistics.mode(int(each.inner_dim // each.heads) for each in modules)


def _fuse_projections(denoiser: nn.Module, undo: list[Callable[[], None]]) -> int:
    """Fuse the projections of every plain self-attention; how many there were."""
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0, FusedAttnProcessor2_0

    count = 0
    for module in denoiser.modules():
        if not isinstance(module, Attention) or type(module.processor) is not AttnProcessor2_0:
            continue
        if module.is_cross_attention or hasattr(module, "to_qkv"):
            continue
        before = module.processor
        with torch.no_grad():
            module.fuse_projections(fuse=True)
        _share_fused(module.to_qkv, (module.to_q, module.to_k, module.to_v))
        module.set_processor(FusedAttnProcessor2_0())
        undo.append(partial(_unfuse, module, before))
        count += 1
    return count


def _share_fused(fused: Any, parts: Sequence[Any]) -> None:
    """Make the parts views of the fused layer, so that both together take the memory of one."""
    start = 0
    for part in parts:
        end = start + part.out_features
        for name in ("weight", "bias"):
            own = getattr(part, name)
            if own is not None:
                setattr(part, name, nn.Parameter(getattr(fused, name).detach()[start:end], own.requires_grad))
        start = end


def _unfuse(module: Any, processor: Any) -> None:
    for part in (module.to_q, module.to_k, module.to_v):
        for name in ("weight", "bias"):
            own = getattr(part, name)
            if own is not None:
                setattr(part, name, nn.Parameter(own.detach().clone(), own.requires_grad))
    del module.to_qkv
    module.fused_projections = False
    module.set_processor(processor)


class _Unmasked:
    """An attention processor that is told of no mask."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Tensor | None = None,
    ) -> Any:
        return self.processor(attn, hidden_states, encoder_hidden_states, None, image_rotary_emb)


def _common_length(mask: Tensor, version: int) -> int | None:
    """How many tokens all texts of a mask have; None where they differ, or where padding is not at the end."""
    lengths = mask.sum(dim=1)
    shortest, longest = int(lengths.min()), int(lengths.max())
    return longest if shortest == longest and bool(mask[:, :longest].all()) else None


def _drop_text_padding(denoiser: nn.Module, undo: list[Callable[[], None]]) -> None:
    """Cut the text to its own tokens where all clips of a batch have as many, and then attend without a mask."""
    net: Any = denoiser
    whole = net.forward
    blocks = [*net.transformer_blocks, *net.single_transformer_blocks]
    # Made once: compiled blocks are compiled again for every processor that they have not seen.
    masked = [block.attn.processor for block in blocks]
    unmasked = [_Unmasked(processor) for processor in masked]
    # Looked up once a clip: reading it makes a GPU's queue run empty.
    length_of = lru_cache(maxsize=1)(_common_length)

    def forward(
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        *rest: Any,
        **named: Any,
    ) -> Any:
        mask = encoder_attention_mask
        # Tensors made in inference mode do not count their changes; a pipeline's mask has none from step to step.
        length = length_of(mask, 0 if mask.is_inference() else mask._version)
        if length is None:
            return whole(hidden_states, timestep, encoder_hidden_states, mask, *rest, **named)
        text, mask = encoder_hidden_states[:, :length], mask[:, :length]
        for block, processor in zip(blocks, unmasked, strict=True):
            block.attn.processor = processor
        try:
            return whole(hidden_states, timestep, text, mask, *rest, **named)
        finally:
            for block, processor in zip(blocks, masked, strict=True):
                block.attn.processor = processor

    undo.append(_replace_forward(net, forward))


def _forget_compiled(net: nn.Module) -> None:
    for module in net.modules():
        module._compiled_call_impl = None
