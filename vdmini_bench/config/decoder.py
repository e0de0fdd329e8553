"""A smaller VAE decoder, as files ask for it: its size, and how it is fine-tuned."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from vdmini_bench.config.fields import Positive, Specification

Weight = Annotated[float, Field(ge=0)]


class FinetuneSpec(Specification):
    """The fine-tuning; names as in `vdmini.decoder_finetuning.FinetuneSettings`, defaults for the embedded teacher."""

    steps: Positive = 1500
    batch_size: Positive = 1
    frames: Positive = 10
    learning_rate: Annotated[float, Field(gt=0)] = 1.2e-3
    lambda_perceptual: Weight = 0.03
    lambda_adversarial: Weight = 0.05
    discriminator_start: Annotated[int, Field(ge=0)] = 750
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    gradient_checkpointing: bool = False
    checkpoint_every: Positive = 100
    seed: int = 0


class DecoderSpec(Specification):
    """The size of a decoder as `vdmini.vae.prune_decoder` takes it; without `finetune` it stays as pruned."""

    parameters: Annotated[float, Field(gt=0)] | None = None
    widths: Annotated[list[Positive] | None, Field(validate_default=True)] = None
    layers: list[Positive] | None = None
    mid_block: bool = False
    finetune: FinetuneSpec | None = None

    @field_validator("widths")
    @classmethod
    def _parameters_or_widths(cls, widths: list[int] | None, info: ValidationInfo) -> list[int] | None:
        if widths is not None and info.data.get("parameters") is not None:
            raise ValueError("widths decide the number of parameters: give one of both")
        return widths
