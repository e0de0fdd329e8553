"""Which frames a video has at a rate: those that FFmpeg's own filter gives, in 1,000 draws and from files."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vdmini_bench.data.timeline import Timeline, count_at_rate, frames_at_rate
from vdmini_bench.data.video import read_frames, read_timeline
from vdmini_bench.errors import UnreadableVideoError

NTSC = [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)]
DECIMALS = [Fraction("23.976"), Fraction("29.97"), Fraction("12.5")]
RATES = st.sampled_from([*NTSC, *DECIMALS]) | st.integers(1, 120).map(Fraction)
TICKS = st.sampled_from([*(Fraction(1, each) for each in (25, 100, 1000, 90000)), Fraction(1001, 30000)])


class FpsFilter:
    """FFmpeg's filter `fps`, which tells frames apart by their brightness."""

    def __init__(self, rate: Fraction, tick: Fraction) -> None:
        self.graph = av.filter.Graph()
        self.source = self.graph.add_buffer(width=16, height=16, format=av.VideoFormat("gray"), time_base=tick)
        fps, self.sink = self.graph.add("fps", str(rate)), self.graph.add("buffersink")
        self.source.link_to(fps)
        fps.link_to(self.sink)
        self.graph.configure()

    def frames(self, times: list[int], last: int, tick: Fraction) -> Iterator[int]:
        """The places of the frames that come out; the last one lasts `last` ticks."""
        for place, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), place, np.uint8), format="gray")
            frame.pts, frame.time_base = time, tick
            frame.duration = last if place == len(times) - 1 else 1
            self.source.push(frame)
            yield from self._pulled()
        self.source.push(None)
        yield from self._pulled()

    def _pulled(self) -> Iterator[int]:
        while True:
            try:
                yield int(self.sink.pull().to_ndarray()[0, 0])
            except (BlockingIOError, EOFError):
                return


@st.composite
def timelines(draw: st.DrawFn) -> tuple[list[int], int, Fraction]:
    """Times of up to 60 frames in ticks: of a constant rate, rounded as a clock does, or of gaps as they come."""
    tick, count, start = draw(TICKS), draw(st.integers(1, 60)), draw(st.integers(-200, 5000))
    if draw(st.booleans()):
        rate = draw(RATES)
        times = [start + round(place / (rate * tick)) for place in range(count)]
    else:
        gap = st.integers(0, max(1, round(Fraction(1, 5) / tick)))
        times = [start]
        for _ in range(count - 1):
            times.append(times[-1] + draw(gap))
    return times, draw(st.integers(1, max(1, round(Fraction(1, 5) / tick)))), tick


@given(timelines(), RATES)
@settings(max_examples=1000, deadline=None)
def test_frames_are_those_of_ffmpegs_filter(shown: tuple[list[int], int, Fraction], rate: Fraction) -> None:
    times, last, tick = shown
    expected = list(FpsFilter(rate, tick).frames(times, last, tick))
    ends = [*times[1:], times[-1] + last]
    spans = [(time * tick, end * tick, place) for place, (time, end) in enumerate(zip(times, ends, strict=True))]
    assert list(frames_at_rate(spans, rate)) == expected
    assert count_at_rate([span[:2] for span in spans], rate) == len(expected)
    # Later starts are later in the same frames.
    assert list(frames_at_rate(spans, float(rate), start=5)) == expected[5:]


# Those that videos have: of others, ten frames rounded to milliseconds may say another rate.
USUAL = st.sampled_from([*NTSC, *DECIMALS, *map(Fraction, (7, 8, 10, 12, 15, 24, 25, 30, 48, 50, 60, 100, 120))])


@given(USUAL.map(lambda rate: (rate, 1000)) | RATES.map(lambda rate: (rate, 90000)),
       st.integers(10, 200), st.integers(0, 100_000), RATES)  # fmt: skip
def test_a_constant_rate_is_told_whatever_the_clock(
    told: tuple[Fraction, int], count: int, start: int, other: Fraction
) -> None:
    rate, clock = told
    tick = Fraction(1, clock)
    times = tuple(start + round(place / (rate * tick)) for place in range(count))
    timeline = Timeline(times, times[-1] + 1, tick, Fraction(25), by_place=False)
    assert timeline.even
    assert timeline.has_rate(float(rate))
    if clock == 90000:
        assert timeline.has_rate(float(rate) * 1.0015)
        assert timeline.has_rate(float(rate) * 0.9985)
    assert timeline.count(float(rate)) == count
    # A thousandth of a second is all that a clock may hide.
    assume(abs(other - rate) > rate / 400 + rate * rate / 1000 / (count - 1))
    assert not timeline.has_rate(float(other))


@given(RATES, st.sampled_from([1000, 90000, None]), st.integers(10, 200), st.data())
def test_one_frame_lost_makes_a_rate_variable(
    rate: Fraction, clock: int | None, count: int, data: st.DataObject
) -> None:
    tick = 1 / rate if clock is None else Fraction(1, clock)
    times = [round(place / (rate * tick)) for place in range(count + 1)]
    del times[data.draw(st.integers(1, count - 1))]
    timeline = Timeline(tuple(times), times[-1] + 1, tick, rate, by_place=False)
    assert not timeline.even
    assert not timeline.has_rate(float(rate))
    least, greatest = timeline.gaps
    assert greatest == pytest.approx(2 * least, rel=0.2)


def numbered(count: int) -> NDArray[np.uint8]:
    """Frames that tell their number: frame n is grey of level 20 + 8 n."""
    return np.stack([np.full((32, 48, 3), 20 + 8 * number, np.uint8) for number in range(count)])


def number_of(frame: NDArray[np.uint8]) -> int:
    return round((float(frame.mean()) - 20) / 8)


def write(path: Path, gaps: list[int], codec: str = "libx264", pixels: str = "yuv420p") -> Path:
    """A video whose frames are shown for `gaps` milliseconds each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264":
            stream.options = {"crf": "4"}
        for frame, time in zip(numbered(len(gaps)), np.cumsum([0, *gaps]).tolist(), strict=False):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts, image.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def of_the_filter(path: Path, rate: Fraction) -> list[int]:
    """The frames of a file as FFmpeg decodes it and its filter `fps` picks them."""
    graph, found = av.filter.Graph(), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        source = graph.add_buffer(template=stream)
        fps, sink = graph.add("fps", str(rate)), graph.add("buffersink")
        source.link_to(fps)
        fps.link_to(sink)
        graph.configure()
        for frame in [*container.decode(stream), None]:
            source.push(frame)
            while True:
                try:
                    found.append(number_of(sink.pull().to_ndarray(format="rgb24")))
                except (BlockingIOError, EOFError):
                    break
    return found


VARIABLE = [20] * 8 + [130, 70, 40, 40, 210, 35] + [90] * 6


@pytest.mark.parametrize(("name", "codec", "pixels"), [
    ("clip.mp4", "libx264", "yuv420p"), ("clip.mkv", "ffv1", "bgr0"), ("clip.mov", "libx264", "yuv420p"),
    ("clip.webm", "libvpx-vp9", "yuv420p"), ("clip.gif", "gif", "rgb8"),
])  # fmt: skip
def test_a_variable_rate_is_read_by_its_times(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = write(tmp_path / name, VARIABLE, codec, pixels)
    assert not read_timeline(path).even
    assert read_timeline(path).gaps == pytest.approx((0.02, 0.21))
    for rate in (7, 12.5, 24000 / 1001, 60):
        expected = of_the_filter(path, Fraction(rate).limit_denominator(1001))
        assert [number_of(frame) for frame in read_frames(path, len(expected), rate)] == expected
        assert read_timeline(path).count(rate) == len(expected)
        with pytest.raises(UnreadableVideoError, match=f"{len(expected)} frames where the protocol needs"):
            read_frames(path, len(expected) + 1, rate)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.flv"])
@pytest.mark.parametrize(("rate", "wanted"), [(NTSC[0], 24), (NTSC[1], 30), (NTSC[2], 60), (Fraction(30), 29.97)])
def test_rates_of_television_are_whole_ones(tmp_path: Path, name: str, rate: Fraction, wanted: float) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        # B-frames come out of order, and AVI has no times for them.
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.options = 32, 48, "yuv420p", {"crf": "4", "bf": "3"}
        for frame in numbered(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert read_timeline(path).has_rate(wanted)
    assert [number_of(frame) for frame in read_frames(path, 25, wanted)] == list(range(25))
    # At half the rate every second one is taken, whatever times the file has for those that are out of order.
    halved = [number_of(frame) for frame in read_frames(path, 12, float(rate) / 2)]
    assert {after - before for before, after in pairwise(halved)} <= {1, 2, 3}
    assert halved[-1] - halved[0] in (21, 22, 23)


def test_a_random_start_is_in_the_same_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", VARIABLE)
    whole = of_the_filter(path, Fraction(25))
    starts = set()
    for seed in range(150):
        found = [number_of(frame) for frame in read_frames(path, 6, 25, offset_seed=seed)]
        starts |= {start for start in range(len(whole) - 5) if whole[start : start + 6] == found}
        assert found in [whole[start : start + 6] for start in range(len(whole) - 5)]
    assert {0, len(whole) - 6} <= starts
