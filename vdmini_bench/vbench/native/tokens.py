"""CLIP's tokenizer from the file of merges that CLIP was published with; ViCLIP reads the same words."""

from __future__ import annotations

import gzip
import html
from pathlib import Path

import torch
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Words
from torch import Tensor

from vdmini_bench.errors import MissingAssetsError

MERGES = 49152 - 256 - 2
START, END = "<|startoftext|>", "<|endoftext|>"
_PARTS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Texts to token numbers, by the words of `bpe_simple_vocab_16e6.txt.gz`.

    Raises:
        MissingAssetsError: the file is another one.
    """

    def __init__(self, path: Path) -> None:
        try:
            lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise MissingAssetsError(f"{path} cannot be read as CLIP's words ({error}): download it again") from error
        pairs = [tuple(line.split()) for line in lines[1 : MERGES + 1]]
        merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
        if len(merges) != MERGES:
            raise MissingAssetsError(f"{path} has {len(merges)} merges where CLIP has {MERGES}: download it again")
        letters = _letters()
        names = [*letters, *(f"{letter}</w>" for letter in letters), *(first + second for first, second in merges)]
        vocabulary = {name: number for number, name in enumerate([*names, START, END])}
        words = Words(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
        words.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
        split = pre_tokenizers.Split(Regex(_PARTS), behavior="removed", invert=True)
        words.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        self.words, self.start, self.end = words, words.token_to_id(START), words.token_to_id(END)

    def numbers(self, text: str, length: int, *, cut: bool) -> Tensor:
        """A text as 1 x `length` token numbers, with zeros after its end; with `cut` a longer one loses its end.

        Raises:
            ValueError: it is longer and may not be cut.
        """
        clean = html.unescape(html.unescape(text)).strip()
        found = [self.start, *self.words.encode(clean, add_special_tokens=False).ids, self.end]
        if len(found) > length:
            if not cut:
                raise ValueError(f"{text!r} has {len(found)} tokens where the network reads {length}")
            found = [*found[: length - 1], self.end]
        return torch.tensor([found + [0] * (length - len(found))])


def _letters() -> list[str]:
    """A visible character for each byte, in the order of their numbers: bytes that are visible stand for themselves."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = len(set(range(256)) - set(visible))
    return [chr(number) for number in visible] + [chr(256 + place) for place in range(hidden)]
