"""What voters judge: pairs of a run's clips under names that say nothing, and the key that stays with the run."""

from __future__ import annotations

import base64
import hmac
import io
import json
import random
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.report.examples import LOSSLESS_SIDE, QUALITY, Example, Examples
from vdmini_bench.report.player import webp_address
from vdmini_bench.system.tables import visible
from vdmini_bench.system.text_files import read_text

KEY_FILE = "vote_key.json"
MOST_PAIRS, MOST_CHECKS = 60, 8
# A spoilt clip has so many squares a side, half of them covered: the same ones in all frames, so that nothing flickers.
SQUARES = 16


class ShownClip(BaseModel):
    """What a clip of the page is; votes of one `request`, a prompt or a first frame, are not independent."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    request: str
    model: str
    spoilt: bool = False


class Key(BaseModel):
    """What the names in a page and in its votes mean: kept with the run, and never shown to voters."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    study: str
    secret: str
    clips: dict[str, ShownClip]
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Ballot:
    """A key, and each clip's picture as an address that holds it, by the clip's name in the key."""

    key: Key
    sources: dict[str, str]


def make_ballot(
    examples: Examples, parts: Sequence[tuple[Example, Mapping[str, str]]], baseline: str, secret: str = ""
) -> Ballot:
    """The pairs of some examples, each with its clips by row; with the `secret` of a key that there is, the same ones.

    Checks, whose right answer is known, set a clip of the baseline or a real one beside itself half covered.
    """
    secret = secret or secrets.token_hex(16)
    # Not for secrecy: the same pairs each time, unlike in each study.
    chance = random.Random(secret)  # noqa: S311
    clips: dict[str, ShownClip] = {}
    sources: dict[str, str] = {}

    def add(place: int, model: str, spoilt: bool = False) -> str:
        example, shown = parts[place]
        name = _digest(secret, [place, model, spoilt])
        request = visible(example.prompt or example.condition or example.name)
        clips[name] = ShownClip(request=request, model=model, spoilt=spoilt)
        sources[name] = _spoil(shown[model], examples, name) if spoilt else shown[model]
        return name

    chosen = choose_pairs([[*shown] for _, shown in parts], chance)
    pairs = [(add(place, first), add(place, second)) for place, first, second in chosen]
    rows = [row for row in (baseline, "real") if any(row in shown for _, shown in parts)] or [*parts[0][1]][:1]
    known = [(place, row) for row in rows for place, (_, shown) in enumerate(parts) if row in shown]
    pairs += [(add(place, row), add(place, row, spoilt=True)) for place, row in known[:MOST_CHECKS]]
    # In an order that says nothing either: the page is there for anyone to read.
    pairs = sorted((min(pair), max(pair)) for pair in pairs)
    # Not of spoilt pictures: another version of their encoder would make another study.
    study = _digest(secret, [pairs, sorted((name, sources[name]) for name in clips if not clips[name].spoilt)])
    return Ballot(Key(study=study, secret=secret, clips=clips, pairs=pairs), sources)


def choose_pairs(rows: Iterable[Sequence[str]], chance: random.Random) -> list[tuple[int, str, str]]:
    """Pairs of rows for each example by its place, all of them where they are few, else `MOST_PAIRS`.

    Each example has its rows in a circle of random order. Neighbours come first, which links all rows with the fewest
    pairs and judges each row as often as any other; then rows two places apart, and so on.
    """
    circles = [chance.sample([*each], len(each)) for each in rows]
    found: dict[tuple[int, frozenset[str]], tuple[int, str, str]] = {}
    for distance in range(1, max(map(len, circles), default=0) // 2 + 1):
        for place, circle in enumerate(circles):
            for start, first in enumerate(circle):
                second = circle[(start + distance) % len(circle)]
                if first != second:
                    found.setdefault((place, frozenset((first, second))), (place, first, second))
    return [*found.values()][:MOST_PAIRS]


def read_key(path: Path) -> Key:
    """A key that was kept.

    Raises:
        BenchError: it cannot be read.
    """
    try:
        return Key.model_validate_json(read_text(path))
    except (SuiteError, ValidationError) as error:
        raise BenchError(f"{path} cannot be read ({error}); no votes can be merged without it") from error


def _digest(secret: str, value: object) -> str:
    return hmac.digest(secret.encode(), json.dumps(value).encode(), "sha256").hex()[:16]


def _spoil(source: str, examples: Examples, name: str) -> str:
    """A clip half covered by squares of random colours, as an address that holds its frames as before."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        sheet = np.array(picture.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise BenchError(f"{examples.folder}: a clip in it cannot be read ({error}); run the suite again") from error
    dice = np.random.default_rng(int(name, 16))
    covered = dice.permutation(SQUARES**2).reshape(SQUARES, SQUARES) % 2 == 0
    colours = dice.integers(0, 256, (SQUARES, SQUARES, 3), np.uint8)
    sides = zip(sheet.shape, (examples.height, examples.width), strict=False)
    squares = np.ix_(*(np.arange(whole) % frame * SQUARES // frame for whole, frame in sides))
    sheet[covered[squares]] = colours[squares][covered[squares]]
    written = io.BytesIO()
    lossless = max(examples.width, examples.height) <= LOSSLESS_SIDE
    Image.fromarray(sheet).save(written, "WEBP", lossless=lossless, quality=QUALITY, method=4)
    return webp_address(written.getvalue())
