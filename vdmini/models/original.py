"""Original files of published transformers, which diffusers' own converters give the names of its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from torch import Tensor, nn

from vdmini.errors import ModelLoadError
from vdmini.models.weights import names_that_do_not_fit, read_weights


def fill_from_original(
    denoiser: nn.Module,
    config: Mapping[str, object],
    name: str,
    path: Path,
    prepare: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
) -> nn.Module:
    """Give a denoiser the weights of a published model's original single file, .safetensors or pickled tensors.

    `prepare` makes them such as diffusers' converter can take. Raises ModelLoadError for a file that is not the model
    `name`, all of it and no more, and for a class of which diffusers converts no files.
    """
    weights = read_weights(path)
    expected = {key: weight.shape for key, weight in denoiser.state_dict().items()}
    # Files with diffusers' own names, but for a few, are compared as they are; an original lacks a sixth and more.
    if 20 * len({*expected} - {*weights}) > len(expected):
        loadable = SINGLE_FILE_LOADABLE_CLASSES.get(type(denoiser).__name__)
        if loadable is None:
            raise ModelLoadError(
                f"{path}: original checkpoints of {name!r} are not read: give its diffusers folder or hub id, or"
                " convert the file with diffusers' scripts/convert_*_to_diffusers.py"
            )
        try:
            left = prepare(weights)
            weights = loadable["checkpoint_mapping_fn"](checkpoint=left, config=config)
        except Exception as error:  # whatever names or shapes the converter did not meet, the file is at fault
            lacks = f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise ModelLoadError(
                f"{str(path)!r} is no original file of {name!r} ({lacks}): check the file and the model's name"
            ) from error
        # Converters take out what they know. A VAE in the same file, as LTX-Video's have it, is none of ours.
        weights |= {key: weight for key, weight in left.items() if "vae" not in key}
    if wrong := names_that_do_not_fit(expected, {key: weight.shape for key, weight in weights.items()}):
        raise ModelLoadError(
            f"{str(path)!r} is no original file of {name!r}: by diffusers' names, {wrong}: check the model's name,"
            " that the file is not one part of several, and that its weights are unquantised"
        )
    denoiser.load_state_dict(weights, assign=True)
    return denoiser
