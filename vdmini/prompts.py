"""Prompts that a text encoder cuts, found before anything is sampled from them or trained on them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


@dataclass(frozen=True)
class CutPrompt:
    """A prompt of which `encoder`, a part of the pipeline, reads `tokens` tokens at most, and the text it loses."""

    prompt: str
    encoder: str
    tokens: int
    lost: str


def cut_prompts(pipeline: DiffusionPipeline, prompts: Iterable[str]) -> list[CutPrompt]:
    """The prompts, each once, that a pipeline's text encoders do not read to the end as it samples by default."""
    distinct = dict.fromkeys(prompts)
    return [
        CutPrompt(prompt, encoder, limit, lost)
        for encoder, tokenizer, limit, template in _encoders(pipeline)
        for prompt in distinct
        if (lost := _lost(tokenizer, limit, template, prompt)) is not None
    ]


def _encoders(pipeline: DiffusionPipeline) -> Iterator[tuple[str, Any, int, str]]:
    """Each text encoder's name, its tokenizer, how many tokens it is given, and the text around a prompt."""
    from vdmini.models.registry import family_of, pipeline_denoiser
    from vdmini.models.transformer import TransformerFamily

    options, run = inspect.signature(type(pipeline).__call__).parameters, cast(Any, pipeline)
    family = family_of(pipeline_denoiser(pipeline))
    for suffix in ("", "_2"):
        tokenizer: Any = getattr(pipeline, f"tokenizer{suffix}", None)
        if tokenizer is None:
            continue
        encoder = f"text_encoder{suffix}"
        template = "{}"
        if not suffix and hasattr(pipeline, "system_message"):
            chat = [{"role": "system", "content": run.system_message}, {"role": "user", "content": "{}"}]
            template = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            limit = run.tokenizer_max_length + run.prompt_template_encode_start_idx
        elif not suffix and isinstance(family, TransformerFamily):
            limit = family.text_tokens(pipeline)
            if "prompt_template" in options:
                # HunyuanVideo's instructions stand before the prompt, and their tokens count besides.
                around = options["prompt_template"].default
                limit, template = limit + around["crop_start"], around["template"]
            elif hasattr(pipeline, "prompt_template"):
                limit, template = limit + run.prompt_template_encode_start_idx, run.prompt_template
            elif "complex_human_instruction" in options:
                # So do SANA-Video's, whose pipeline takes two tokens for their ends.
                before = "\n".join(options["complex_human_instruction"].default)
                limit, template = limit + len(tokenizer.encode(before)) - 2, f"{before}{{}}"
            elif tokenizer.chat_template is not None:
                template = tokenizer.apply_chat_template([*family.chat], tokenize=False)
        else:
            positions = getattr(getattr(pipeline, encoder).config, "max_position_embeddings", None)
            if positions is None:
                # HunyuanVideo-1.5's second encoder reads what a prompt has in quotation marks alone.
                continue
            limit = min(tokenizer.model_max_length, positions)
        yield encoder, tokenizer, limit, template


def _lost(tokenizer: Any, limit: int, template: str, prompt: str) -> str | None:
    def tokens(text: str) -> list[int]:
        # Not verbose: it would warn of texts that are too long, in other words than ours.
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return ids

    before, _, after = template.partition("{}")
    ids = tokens(f"{before}{prompt}{after}")
    ids = ids[: len(ids) - len(tokens(after))] if after else ids
    room = limit - tokenizer.num_special_tokens_to_add()
    return tokenizer.decode(ids[room:]) if len(ids) > room else None
