"""From a command's options to what is scored: prompts and images, or what is missing of them."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.config.vbench_dimensions import Mode
from vdmini_bench.errors import MissingAssetsError, SuiteError
from vdmini_bench.vbench.environment import Environment
from vdmini_bench.vbench.prompts import Prompt, read_prompts

RATIOS = ("1-1", "8-5", "7-4", "16-9")
I2V_PROMPTS = "vbench2_i2v_full_info.json"


def find_prompts(
    mode: Mode, prompt_file: Path | None, images: Path | None, ratio: str | None, environment: Environment
) -> tuple[Prompt, ...]:
    """The official prompts of a mode: from the file given, or the environment's package, or the imported folder.

    Raises:
        SuiteError: the file is no prompt file, or image to video is not told its images' aspect ratio.
        MissingAssetsError: the prompts are not there.
    """
    if mode == "custom":
        return ()
    if mode == "t2v":
        return tuple(read_prompts(prompt_file or environment.prompt_file()))
    if ratio is None:
        raise SuiteError(f"mode i2v: say by --ratio {', '.join(RATIOS)} which images the videos were made from")
    folder = asset_path("vbench-i2v")
    if prompt_file is None and folder is None:
        raise MissingAssetsError(
            "VBench-I2V's prompts are not here; next: `vdmini-bench assets import vbench-i2v PATH`, or --prompts FILE"
        )
    crops = images or (folder / "data" / "crop" / ratio if folder is not None else None)
    file = prompt_file or (folder / I2V_PROMPTS if folder is not None else Path(I2V_PROMPTS))
    return tuple(read_prompts(file, crops))
