"""Tag2Text (Huang et al. 2023): what frames show, first as tags, then as a sentence that is made from these.

The sentence is found as transformers 4.33 does for the official code: by three beams, of 10 to 30 tokens. Tensors are
named as in `tag2text_swin_14m.pth`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from torch.nn import functional as F

from vdmini.finite import NotFiniteError, is_finite
from vdmini_bench.errors import MissingAssetsError
from vdmini_bench.vbench.native.swin import State, linear, norm, see
from vdmini_bench.vbench.native.transformer import part_of, read_checkpoint, require_names

# Of what reads and writes, and of what finds tags.
HEADS, TAG_HEADS = 12, 4
EPSILON = 1e-12
# Tags that the official code never gives.
LEFT_OUT = [127, 3351, 3265, 3338, 3355, 3359]
SURE, TAG_TOKENS = 0.7, 40
PROMPT = "a picture of "
BEAMS, SHORTEST, LONGEST = 3, 10, 30
# A sentence's mean score a token, and its tokens.
Ended = tuple[float, list[int]]


class Tag2Text:
    """B 3 384 384 normalised pixels to a sentence each, by a file's tensors, the tags' names and BERT's words."""

    def __init__(self, state: State, tags: Sequence[str], words: BertWordPieceTokenizer) -> None:
        parts = ("visual_encoder", "vision_multi", "tag_encoder", "text_decoder.bert", "text_decoder.cls.predictions")
        self.seeing, self.tagging, self.reading, self.writing, self.head = (part_of(state, f"{it}.") for it in parts)
        self.labels, self.weight, self.bias = state["label_embed.weight"], state["fc.W"], state["fc.b"]
        self.tags, self.words = tags, words

    def __call__(self, pixels: Tensor) -> list[str]:
        """Caption a batch."""
        seen = see(self.seeing, pixels)
        read = [self.words.encode(tags) for tags in self.tags_of(seen)]
        # The first token says that they are to be read.
        tokens = seen.new_tensor([[self._number("[ENC]"), *each.ids[1:]] for each in read]).long()
        real = seen.new_tensor([each.attention_mask for each in read]).bool()[:, None, None]
        encoded = _bert(self.reading, _embedded(self.reading, tokens), seen, HEADS, real)
        return [self._sentence(each) for each in encoded]

    def tags_of(self, seen: Tensor) -> list[str]:
        """The tags of each frame, between bars."""
        labels = _bert(self.tagging, self.labels.expand(len(seen), -1, -1), seen, TAG_HEADS, alone=True)
        sure = ((self.weight * labels).sum(-1) + self.bias).sigmoid() > SURE
        sure[:, LEFT_OUT] = False
        return [" | ".join(self.tags[place] for place in row.nonzero()[:, 0].tolist()) for row in sure]

    def _sentence(self, encoded: Tensor) -> str:
        """The best sentence of three beams on what was read of a frame's tags, N C, without its first words."""
        start, end = [self._number(word) for word in ("[DEC]", *PROMPT.split())], self._number("[SEP]")
        beams = encoded.new_tensor([start] * BEAMS).long()
        scores = encoded.new_tensor([0.0, *[-1e9] * (BEAMS - 1)])
        ended: list[Ended] = []
        while beams.shape[1] < LONGEST:
            following = self._next(beams, encoded.expand(BEAMS, -1, -1))
            if beams.shape[1] < SHORTEST:
                following[:, end] = -torch.inf
            best = (following + scores[:, None]).flatten().topk(2 * BEAMS)
            beam, token = best.indices // following.shape[1], best.indices % following.shape[1]
            ends = token == end
            for place in ends[:BEAMS].nonzero()[:, 0].tolist():
                ended = _with(ended, best.values[place], beams[beam[place]])
            # As far as its mean over tokens says, no beam becomes better than the worst that has ended.
            if len(ended) == BEAMS and ended[0][0] >= float(best.values[0]) / (beams.shape[1] + 1):
                break
            going = (~ends).nonzero()[:BEAMS, 0]
            scores, beams = best.values[going], torch.cat([beams[beam[going]], token[going, None]], dim=1)
        else:
            for score, sentence in zip(scores, beams, strict=True):
                ended = _with(ended, score, sentence)
        return self.words.decode(ended[-1][1])[len(PROMPT) :]

    def _next(self, tokens: Tensor, encoded: Tensor) -> Tensor:
        """Of each word the logarithm of its probability to come next: B N and B M C to B V."""
        count = tokens.shape[1]
        before = torch.ones(count, count, dtype=torch.bool, device=tokens.device).tril()
        last = _bert(self.writing, _embedded(self.writing, tokens), encoded, HEADS, before)[:, -1]
        last = norm(self.head, "transform.LayerNorm", F.gelu(linear(self.head, "transform.dense", last)), EPSILON)
        return linear(self.head, "decoder", last).log_softmax(-1)

    def _number(self, word: str) -> int:
        number = self.words.token_to_id(word)
        assert number is not None
        return number


def load_tag2text(weights: Path, tags: Path, vocabulary: Path, device: torch.device) -> Tag2Text:
    """Read the published weights, the list of tags in the official `tag_class.py`, and BERT's vocabulary.

    Raises:
        MissingAssetsError: one of them is another file.
        NotFiniteError: a weight is not finite.
    """
    checkpoint = read_checkpoint(weights)
    require_names(checkpoint, ("model",), weights, "Tag2Text")
    state = {name: value.to(device) for name, value in checkpoint["model"].items()}
    require_names(
        state,
        ("label_embed.weight", "fc.W", "fc.b", "text_decoder.cls.predictions.decoder.weight"),
        weights,
        "Tag2Text",
    )
    broken = [name for name, value in state.items() if value.is_floating_point() and not is_finite(value)]
    if broken:
        raise NotFiniteError(f"{weights}: {broken[0]} is not finite")
    return Tag2Text(state, read_tags(tags), read_vocabulary(vocabulary))


def read_tags(file: Path) -> list[str]:
    """The names of the tags from a file of Python's that lists them; it is not run."""
    try:
        (listed,) = (
            each for each in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(each, ast.List)
        )
        return [str(name) for name in ast.literal_eval(listed)]
    except (OSError, ValueError, SyntaxError) as error:
        raise MissingAssetsError(f"{file} is no list of Tag2Text's tags ({error}): download it again") from error


def read_vocabulary(file: Path) -> BertWordPieceTokenizer:
    """BERT's tokenizer from the vocabulary of bert-base-uncased, with the two words that Tag2Text adds."""
    try:
        words = BertWordPieceTokenizer(str(file), lowercase=True)
    except Exception as error:  # whatever the library raises for what is no such file
        raise MissingAssetsError(f"{file} is no vocabulary of BERT ({error}): download it again") from error
    words.add_special_tokens(["[DEC]", "[ENC]"])
    words.enable_truncation(TAG_TOKENS)
    words.enable_padding(length=TAG_TOKENS)
    return words


def _with(ended: list[Ended], score: Tensor, tokens: Tensor) -> list[Ended]:
    """The best sentences that have ended, with one more, by their mean score a token: the best one last."""
    return sorted([*ended, (float(score) / len(tokens), tokens.tolist())], key=lambda each: each[0])[-BEAMS:]


def _embedded(state: State, tokens: Tensor) -> Tensor:
    """B N token numbers with their places to B N C."""
    places = state["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    embedded = F.embedding(tokens, state["embeddings.word_embeddings.weight"]) + places
    return norm(state, "embeddings.LayerNorm", embedded, EPSILON)


def _bert(
    state: State, tokens: Tensor, seen: Tensor, heads: int, mask: Tensor | None = None, *, alone: bool = False
) -> Tensor:
    """B N C to the same, by all layers: tokens attend to each other, unless `alone`, then to what is seen, B M D.

    `mask` is true where one token sees another.
    """
    for place in range(len({name.split(".")[2] for name in state if name.startswith("encoder.layer.")})):
        layer = part_of(state, f"encoder.layer.{place}.")
        if not alone:
            tokens = _attend(part_of(layer, "attention."), tokens, tokens, heads, mask)
        tokens = _attend(part_of(layer, "crossattention."), tokens, seen, heads)
        inner = linear(layer, "output.dense", F.gelu(linear(layer, "intermediate.dense", tokens)))
        tokens = norm(layer, "output.LayerNorm", inner + tokens, EPSILON)
    return tokens


def _attend(state: State, tokens: Tensor, others: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    maps = [linear(state, f"self.{name}", of) for name, of in (("query", tokens), ("key", others), ("value", others))]
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in maps)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
    return norm(state, "output.LayerNorm", linear(state, "output.dense", mixed) + tokens, EPSILON)
