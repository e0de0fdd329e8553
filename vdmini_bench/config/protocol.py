"""The protocol of a suite: how clips are read, and what they are scored with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from vdmini_bench.config.fields import Positive, Rate, Specification
from vdmini_bench.config.protocols import PRESETS, Condition, FeatureNetwork, Offset
from vdmini_bench.config.yaml_file import nearest_key
from vdmini_bench.data.preprocessing import Preprocessing

PackagedMetric = Literal["jedi", "fvmd"]


class ProtocolSpec(Specification):
    """What a clip is and how it reaches the network of FVD; two scores compare only under the same name and version.

    `preset` is one of `vdmini_bench.config.protocols`, which then fills the fields. Without `resample` frames are
    consecutive, whatever the rate of the file. `condition` is what models are given of each clip of
    `condition_split`: its first frame, or the name of its class as words. `packaged_metrics` are rows besides, whose
    networks run through the packages of their authors.
    """

    preset: str | None = None
    name: str
    version: Positive = 1
    frames: Annotated[int, Field(ge=9)]
    frames_per_second: Rate
    resize_width: Positive | None = None
    resize_height: Positive | None = None
    resample: bool = True
    preprocessing: Preprocessing = "resize"
    network: FeatureNetwork = "i3d-kinetics400"
    network_resize: Literal["antialiased", "plain"] = "antialiased"
    reference_offset: Offset = "start"
    generated_offset: Offset = "start"
    offset_seed: int = 0
    covariance: Literal["n-1", "n"] = "n-1"
    short_videos: Literal["refuse", "leave-out"] = "refuse"
    sampling: Literal["balanced", "first"] = "balanced"
    condition: Condition = "first-frame"
    condition_split: Literal["train", "test", "all"] = "test"
    reference_split: Literal["train", "test", "all"] = "train"
    clips_per_block: Annotated[int, Field(ge=2)]
    blocks: Positive
    reference: Literal["shipped", "computed"]
    reference_clips: Annotated[int, Field(ge=2)]
    inception: Literal["i3d-kinetics400", "c3d-ucf101"]
    frame_fid: bool = False
    packaged_metrics: list[PackagedMetric] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        """The fields as written, with those of the preset they name, which may say nothing else."""
        if not isinstance(data, dict) or data.get("preset") is None:
            return data
        name = data["preset"]
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; {nearest_key(name, PRESETS)}")
        preset = PRESETS[name]
        fixed = {"name": name, "version": preset.version, "reference": "computed", **preset.fixed}
        for key, value in fixed.items():
            if key in data and data[key] != value:
                raise ValueError(
                    f"the preset {name} has {key}: {value}, and here is {data[key]}: leave {key} out, or leave preset"
                    " out and give the protocol a name of its own"
                )
        if data.get("frames", preset.frames[0]) not in preset.frames:
            allowed = " or ".join(map(str, preset.frames))
            raise ValueError(f"the preset {name} has clips of {allowed} frames, and here is {data['frames']}")
        return {"frames": preset.frames[0], "inception": "c3d-ucf101", **preset.suggested, **data, **fixed}

    @model_validator(mode="after")
    def _must_suit_the_network(self) -> ProtocolSpec:
        """Refuse what goes with the packaged I3D alone in a protocol of another network."""
        if self.network == "i3d-kinetics400":
            return self
        if self.reference == "shipped":
            reason = "reference: shipped, which holds features of i3d-kinetics400: set reference: computed"
        elif self.inception == "i3d-kinetics400":
            reason = "inception: i3d-kinetics400, which scores classes of I3D: set inception: c3d-ucf101"
        elif self.network == "videomae-ssv2" and self.frames % 2:
            reason = f"frames: {self.frames}, and it takes frames in pairs: set an even number"
        else:
            return self
        raise ValueError(f"network: {self.network} does not go with {reason}")

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked(self, as_usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Protocols that ask for no such metric have the identity that they had before there were any."""
        data: dict[str, Any] = as_usual(self)
        return data if self.packaged_metrics else {key: data[key] for key in data if key != "packaged_metrics"}

    @property
    def clips(self) -> int:
        """How many clips a row is scored on."""
        return self.clips_per_block * self.blocks

    @property
    def rate(self) -> float | None:
        """The rate a file's frames are resampled to; None: they are taken as they are."""
        return self.frames_per_second if self.resample else None

    @property
    def ddof(self) -> int:
        """What the covariance is divided by, as N - ddof."""
        return 1 if self.covariance == "n-1" else 0

    def identity(self, reference: str) -> str:
        """What two scores must share to be compared: the protocol, its counts and splits, and what they were scored on.

        `reference` names the real side, such as `ref2048`.
        """
        named = "" if self.preset is not None or self.condition == "first-frame" else f"/{self.condition}"
        base = f"{self.name}@{self.version}{named}/n{self.clips_per_block}x{self.blocks}/{reference}"
        splits = (self.sampling, self.condition_split, self.reference_split)
        usual = self.preset is None and splits == ("balanced", "test", "train")
        frames = f"/t{self.frames}" if self.preset is not None else ""
        return base if usual else f"{base}{frames}/{'-'.join(splits)}"
