"""What video transformers share: stacks of blocks, each of which hands on tokens of the shape it was given.

So any block can leave, and the one after it reads what the one before it wrote. `Dual.3` is the fourth block of the
stack `Dual`. A family's file declares its class, where its stacks are, and what a forward pass takes.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from accelerate import init_empty_weights
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vdmini.blocks import ModelInput, Unit
from vdmini.errors import PlanError
from vdmini.models.family import Family, Images
from vdmini.models.original import fill_from_original
from vdmini.models.parts import Beside, OwnTensors, Stack, called_parts
from vdmini.models.proof import prove_student
from vdmini.models.registry import pipeline_denoiser
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import draw_prompts, pipeline_of_class, require_clip
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

PAIRS_PER_STACK = 4


class TransformerFamily(Family):
    """What follows from a transformer's class and stacks for planning, pruning, loading and sampling.

    `configs` and `vae_configs` hold what published models and their VAEs, by name, have in place of the defaults of
    `denoiser_class` and `vae_class`. The VAE decodes `latents_at_once` latents beyond the first together.

    `published_size` is that of a published clip in latents: frames, height, width. `texts` says which arguments of a
    forward pass are texts: of how many tokens and, by which option of the configuration or a number, how wide; `masks`
    which are their masks; `chat` are the messages around a prompt, "{}", where the tokenizer writes chats. `beside` are
    modules tied to places of the first stack, if any, and `output_parts` some that come before the stacks and run after
    them. `frames_first` says that latents are B T C H W, where others are B C T H W. `image_pipeline` is the class of
    diffusers that animates an image with the same networks, where there is one; `batches_images` and `batches_prompts`
    say whether several clips from images, or from words, are made as each alone.
    """

    denoiser_class: type[Any]
    vae_class: type[Any]
    stacks: tuple[Stack, ...]
    published_size: tuple[int, int, int]
    texts: Mapping[str, tuple[int, str | int]]
    masks: tuple[str, ...] = ()
    beside: Beside | None = None
    frames_first: bool = False
    image_pipeline: str | None = None
    batches_images: bool = True
    batches_prompts: bool = True
    configs: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    vae_configs: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    latents_at_once: int = 1
    chat: tuple[Mapping[str, Any], ...] = ()
    output_parts: tuple[str, ...] = ()
    task: Task = FlowTask()

    def matches(self, denoiser: nn.Module) -> bool:
        return isinstance(denoiser, self.denoiser_class)

    def denoiser_classes(self) -> dict[str, type[nn.Module]]:
        return {self.denoiser_class.__name__: self.denoiser_class}

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        return self._published(name), self.vae_class(**self.vae_configs.get(name, {}))

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        """By whichever name a VAE has them."""
        names = [(f"scale_factor_{axis}", f"{axis}_compression_ratio") for axis in ("temporal", "spatial")]
        frames, pixels = (vae.config.get(one) or vae.config.get(other) or getattr(vae, other) for one, other in names)
        return int(frames), pixels

    def default_task(self, denoiser: nn.Module) -> Task:
        return self.task

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the published size."""
        return ModelInput(1, *self.published_size)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        latents = (config.in_channels, size.frames) if not self.frames_first else (size.frames, config.in_channels)
        shapes: dict[str, tuple[int, ...]] = {
            "hidden_states": (size.batch, *latents, size.height, size.width), "timestep": (size.batch,),
        }  # fmt: skip
        for argument, (tokens, width) in self.texts.items():
            shapes[argument] = (size.batch, tokens, width if isinstance(width, int) else config[width])
        tokens = next(iter(self.texts.values()))[0]
        return shapes | dict.fromkeys(self.masks, (size.batch, tokens))

    def text_tokens(self, pipeline: DiffusionPipeline) -> int:
        """How many tokens of a prompt a pipeline reads as it samples by default."""
        asked = inspect.signature(type(pipeline).__call__).parameters.get("max_sequence_length")
        return next(iter(self.texts.values()))[0] if asked is None else int(asked.default)

    def images(self, denoiser: nn.Module) -> Images:
        """Never where no pipeline animates them, and always where latents come beside those of an image."""
        config: Any = denoiser.config
        if self.image_pipeline is None:
            return "never"
        return "optional" if config.in_channels == (config.get("out_channels") or config.in_channels) else "always"

    def images_for(self, pipeline: DiffusionPipeline) -> Images:
        """Where a denoiser does with or without one, what the arguments of its pipeline say."""
        takes = self.images(pipeline_denoiser(pipeline))
        argument = inspect.signature(type(pipeline).__call__).parameters.get("image")
        if takes != "optional" or (argument is None and self.image_pipeline is not None):
            return takes
        if argument is None:
            return "never"
        return "always" if argument.default is inspect.Parameter.empty else "optional"

    def width(self, denoiser: nn.Module) -> int:
        config: Any = denoiser.config
        return int(config.num_attention_heads * config.attention_head_dim)

    def patch(self, denoiser: nn.Module) -> tuple[int, int, int]:
        """The latents that make one token: frames, rows and columns."""
        config: Any = denoiser.config
        if isinstance(config.patch_size, int):
            return config.get("patch_size_t") or 1, config.patch_size, config.patch_size
        frames, height, width = config.patch_size
        return frames, height, width

    def clip_steps(self, pipeline: DiffusionPipeline) -> tuple[int, int]:
        """What the frames of a clip beyond the first, and its sides in pixels, must divide by."""
        run: Any = pipeline
        frames, pixels = self.latent_compression(run.vae)
        return frames * self.latents_at_once, pixels * max(self.patch(run.transformer)[1:])

    def clip_grid(self, pipeline: DiffusionPipeline) -> tuple[tuple[int, int], ...]:
        """The least numbers of a clip's frames, rows and columns, each with the step to the next, 0 for none."""
        frames, pixels = self.clip_steps(pipeline)
        return (1, frames), (pixels, pixels), (pixels, pixels)

    def architecture(self, denoiser: nn.Module) -> dict[str, object]:
        config: Any = denoiser.config
        return {option: config.get(option) for option in inspect.signature(self.denoiser_class).parameters}

    def block_modules(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        """The submodules of every block in the order they run; what surrounds the stacks is `embeddings` and `output`.

        What is beside a block is its first submodule. Weights that the denoiser holds itself count with the embeddings.
        """
        stacked = [part.attribute for part in (*self.stacks, self.beside) if part is not None]
        children = dict(denoiser.named_children())
        first = [*children].index(stacked[0])
        around = {name: module for name, module in children.items() if name not in stacked}
        late = {*[*children][first:], *self.output_parts}
        before = [part for name, module in around.items() if name not in late for part in called_parts(module)]
        after = [part for name, module in around.items() if name in late for part in called_parts(module)]
        unsaved = [part for each in around.values() for part in each.modules() if part._non_persistent_buffers_set]
        own = [OwnTensors(denoiser, weights=True), *(OwnTensors(part, weights=False) for part in unsaved)]
        beside = self.modules_beside(denoiser)
        blocks = {name: (*beside.get(name, ()), module) for name, module in self.blocks(denoiser).items()}
        return {"embeddings": (*own, *before), **blocks, "output": tuple(after)}

    def blocks(self, denoiser: nn.Module) -> dict[str, nn.Module]:
        """The blocks of all stacks by name, in the order they run."""
        found: dict[str, nn.Module] = {}
        for _, stacks in itertools.groupby(self.stacks, lambda stack: stack.option):
            in_turn = zip(*(stack.blocks(denoiser).items() for stack in stacks), strict=True)
            found |= dict(itertools.chain.from_iterable(in_turn))
        return found

    def places_beside(self, denoiser: nn.Module) -> Sequence[int]:
        """The places of the blocks in the first stack that have something beside them, in order."""
        return ()

    def modules_beside(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        """What is beside the blocks that have something there, by their names."""
        if self.beside is None:
            return {}
        names = [*self.stacks[0].blocks(denoiser)]
        modules = getattr(denoiser, self.beside.attribute, ())
        pairs = zip(self.places_beside(denoiser), modules, strict=True)
        return {names[place]: (module,) for place, module in pairs}

    def stage_modules(self, denoiser: nn.Module) -> dict[str, nn.Module]:
        """The last block of each stage: a list of modules is not called itself, so it has no output to record."""
        stages = {}
        for stack in self.stacks:
            ends = stack.first, stack.last
            stages[stack.stage] = [block for name, block in stack.blocks(denoiser).items() if name not in ends][-1]
        return stages

    def units(self, denoiser: nn.Module) -> tuple[Unit, ...]:
        """Every block of a stage on its own, or with those that run in turn with it."""
        units: dict[tuple[str, int], list[str]] = {}
        for stack in self.stacks:
            for place, name in enumerate(stack.blocks(denoiser)):
                if name not in (stack.first, stack.last):
                    units.setdefault((stack.option, place), []).append(name)
        return tuple(Unit("+".join(names), tuple(names)) for names in units.values())

    def block_depth(self, denoiser: nn.Module, block: str) -> int:
        """Place of a block in the order they run, through all stacks; 0 for what is in none."""
        names = [*self.blocks(denoiser)]
        return names.index(block) if block in names else 0

    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module:
        """The teacher's class with fewer blocks in its stacks; raises PlanError when a stack is left without blocks."""
        places = self._kept_places(kept, removed)
        for unit in self.units(teacher):
            if 0 < len({*unit.blocks} & {*removed}) < len(unit.blocks):
                raise PlanError(f"{' and '.join(unit.blocks)} leave together: remove all of them or none")
        options = self.counts(places) | self.student_options(teacher, kept)
        return type(teacher)(**{**self.architecture(teacher), **options})

    def counts(self, places: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """The options that say how many blocks each stack has, for the places kept."""
        return {stack.option: len(places[stack.stage]) + stack.fixed for stack in self.stacks}

    def student_options(self, teacher: nn.Module, kept: Sequence[str]) -> dict[str, Any]:
        """What a student's configuration has in place of its teacher's, beside the number of blocks."""
        return {}

    def smallest_input(self, denoiser: nn.Module) -> ModelInput:
        """A clip of a few tokens, to try a network on."""
        return ModelInput(1, *(2 * patch for patch in self.patch(denoiser)))

    def prove(self, teacher: nn.Module, student: nn.Module, removed: Sequence[str]) -> None:
        """On the smallest clip, with the weights themselves; nothing is proved where there are none."""
        if removed and not next(teacher.parameters()).is_meta:
            size = self.smallest_input(teacher)
            gone = {name: block for name, block in self.blocks(teacher).items() if name in removed}
            adding = [module for name in removed for module in self.modules_beside(teacher).get(name, ())]
            hands_on = None if self.beside is None else self.beside.hands_on
            prove_student(teacher, student, gone, self.example_inputs(teacher, size), adding, hands_on)

    def skip_wiring(self, kept: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Transformers have none."""
        return ()

    def student_names(self, kept: Sequence[str], removed: Sequence[str]) -> dict[str, str]:
        """Every stack is numbered from its start again."""
        places = self._kept_places(kept, removed)
        return {
            f"{stack.stage}.{place}": f"{stack.stage}.{index}"
            for stack in self.stacks
            for index, place in enumerate(places[stack.stage], stack.start)
        }

    def feature_pairs(self, kept: Sequence[str], removed: Sequence[str]) -> list[tuple[str, str]]:
        """At most four blocks a stack, evenly spaced."""
        # A kept block's successor reads, in the teacher, what the removed blocks between them made of its output. So
        # the student's block answers for these too: its partner is the teacher's last block before that successor,
        # and the last block's partner is the stack's end. Each feature holds all tokens, hence so few of them.
        # Of stacks that run in turn the last one answers: a block of the others is read by one that stays with it.
        pairs = []
        answering = {stack.option: stack for stack in self.stacks}
        for stack in self.stacks:
            places = self._kept_places(kept, removed)[stack.stage]
            end = stack.start + sum(name.startswith(f"{stack.stage}.") for name in (*kept, *removed))
            partners = [following - 1 for following in (*places[1:], end)]
            partners = partners if answering[stack.option] is stack else places
            wanted = min(PAIRS_PER_STACK, len(places))
            spaced = [len(places) * count // wanted - 1 for count in range(1, wanted + 1)]
            pairs += [(f"{stack.stage}.{index + stack.start}", f"{stack.stage}.{partners[index]}") for index in spaced]
            if stack.last is not None:
                pairs.append((stack.last, stack.last))
        return pairs

    def load_original(self, name: str, path: Path) -> nn.Module:
        """Read a published model's original single file, .safetensors or pickled tensors, into its diffusers class.

        `name` says which configuration the file is of; the weights keep the file's dtype. Works without a network and
        runs no code of the file. Raises ModelLoadError for a file that is not that model's, all of it and no more.
        """
        with init_empty_weights():
            denoiser = self._published(name)
        return fill_from_original(denoiser, self.architecture(denoiser), name, path, self.prepare_original)

    def prepare_original(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of an original file, by name, as diffusers' converter can take them."""
        return {**weights}

    def pipeline_options(self, denoiser: nn.Module, settings: SampleSettings) -> dict[str, Any]:
        """More arguments of this family's pipeline."""
        return {}

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        """Draw each request's prompt, from its image where it has one: B T H W C float32 RGB in [0, 1].

        Raises ValueError for a size or a number of frames that VAE and patches cannot make, a setting that the pipeline
        does not have, and for an image that is missing or not taken.
        """
        require_clip(settings, self.clip_grid(pipeline))
        images = self._images(pipeline, requests)
        animates = "image" in inspect.signature(type(pipeline).__call__).parameters
        run = pipeline_of_class(pipeline, str(self.image_pipeline)) if images and not animates else pipeline
        options: dict[str, Any] = {"output_type": "np", **self.pipeline_options(pipeline_denoiser(pipeline), settings)}
        asked = replace(settings, frames=self.frames_to_ask(run, settings.frames))
        if self.batches_images if images else self.batches_prompts:
            return draw_prompts(run, requests, asked, options | ({"image": images} if images else {}))
        alone: list[dict[str, Any]] = [{"image": image} for image in images] or [{}] * len(requests)
        drawn = zip(requests, alone, strict=True)
        return np.concatenate([
            draw_prompts(run, [request], asked, options | image, alone=True) for request, image in drawn
        ])  # fmt: skip

    def frames_to_ask(self, pipeline: DiffusionPipeline, frames: int) -> int:
        """What a pipeline is to be asked for to make so many frames."""
        return frames

    def _images(self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest]) -> list[Image.Image]:
        takes = self.images_for(pipeline)
        given = [request for request in requests if request.image is not None]
        if takes == "never" and given:
            raise ValueError(f"clip {given[0].name!r} has an image, which this model does not take: leave it out")
        return [request.picture() for request in requests] if given or takes == "always" else []

    def _published(self, name: str) -> nn.Module:
        # All is given, since diffusers' `from_config` forgets changes of what had been a default.
        defaults = {each.name: each.default for each in inspect.signature(self.denoiser_class).parameters.values()}
        return self.denoiser_class(**{**defaults, **self.configs.get(name, {})})

    def _kept_places(self, kept: Sequence[str], removed: Sequence[str]) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {stack.stage: [] for stack in self.stacks}
        for name in (*kept, *removed):
            stage, _, place = name.rpartition(".")
            if stage not in places or not re.fullmatch("[0-9]+", place):
                example = ", ".join(f"{stage}.0" for stage in places)
                raise PlanError(
                    f"{name!r} is no block of a {self.denoiser_class.__name__}: blocks are called {example}"
                )
        for name in kept:
            stage, _, place = name.rpartition(".")
            places[stage].append(int(place))
        for stage, left in places.items():
            if not left:
                raise PlanError(f"the plan removes every block of {stage}: keep at least one")
        return places
