"""Named things in named actions, as any published model can show them, read by CLIP and ViCLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vdmini.importance import Clips
from vdmini_bench.data.synthetic import seeded_by
from vdmini_bench.errors import MissingAssetsError
from vdmini_bench.studies.worlds import Factor, World, other_than
from vdmini_bench.vbench.native.catalogue import CLIP_B, VICLIP, WORDS, path_of
from vdmini_bench.vbench.native.frames import Clip, embed_frames
from vdmini_bench.vbench.native.networks import Networks
from vdmini_bench.vbench.native.scorers import for_clip, read_text, see_video


@dataclass(frozen=True)
class Named:
    """A thing and what it does, such as "a dog" and "is running"."""

    thing: str
    action: str

    @property
    def caption(self) -> str:
        """The prompt."""
        return f"{self.thing} {self.action}"


class NamedWorld(World[Named]):
    """Every thing in every action, by name: CLIP reads things from frames, ViCLIP actions from clips.

    Both choose the text that is most like what they see, among all things or all actions (zero-shot classification,
    Radford et al. 2021, section 3.1). Their weights are VBench's.

    Raises:
        MissingAssetsError: they are not there.
    """

    def __init__(self, things: Sequence[str], actions: Sequence[str], device: torch.device) -> None:
        missing = [str(path) for path in map(path_of, (CLIP_B, VICLIP, WORDS)) if not path.is_file()]
        if missing:
            raise MissingAssetsError(
                f"what reads clips is not there: {', '.join(missing)}; `vdmini-bench vbench check` says how to get it"
            )
        self.things, self.actions = [*things], [*actions]
        self.chance = {"content": 1 / len(things), "motion": 1 / len(actions)}
        self.networks = Networks(device)

    def scenes(self, count: int, skip: int = 0) -> list[Named]:
        every = [Named(*each) for each in product(self.things, self.actions)]
        order = seeded_by("depth/named").permutation(len(every))
        return [every[order[place % len(every)]] for place in range(skip, skip + count)]

    def changed(self, scene: Named, factor: Factor, random: np.random.Generator) -> Named:
        if factor == "motion":
            return replace(scene, action=other_than(random, self.actions, scene.action))
        return replace(scene, thing=other_than(random, self.things, scene.thing))

    @torch.inference_mode()
    def shows(self, factor: Factor, scenes: Sequence[Named], clips: Clips) -> NDArray[np.bool_]:
        pairs = zip(scenes, (Clip(np.asarray(frames), 1.0) for frames in clips), strict=True)
        if factor == "motion":
            return np.array([asked.action == self._action(clip) for asked, clip in pairs])
        return np.array([asked.thing == self._thing(clip) for asked, clip in pairs])

    def _thing(self, clip: Clip) -> str:
        seen = F.normalize(embed_frames(clip, self.networks.device, for_clip, self.networks.clip_b), dim=-1)
        return self.things[int((seen @ self._thing_texts.T).mean(0).argmax())]

    def _action(self, clip: Clip) -> str:
        seen = F.normalize(see_video(clip, self.networks), dim=-1).cpu()
        # Of whatever thing: what is shown may have changed with the action.
        likeness = (seen @ self._action_texts.T).reshape(len(self.things), len(self.actions))
        return self.actions[int(likeness.max(0).values.argmax())]

    @cached_property
    def _thing_texts(self) -> Tensor:
        texts, _ = self.networks.clip_b_texts
        read = [read_text(f"a photo of {thing}", texts, self.networks, cut=True) for thing in self.things]
        return F.normalize(torch.cat(read), dim=-1).cpu()

    @cached_property
    def _action_texts(self) -> Tensor:
        texts, every = self.networks.viclip.text_encoder, product(self.things, self.actions)
        read = [read_text(Named(*each).caption, texts, self.networks, cut=True) for each in every]
        return F.normalize(torch.cat(read), dim=-1).cpu()
