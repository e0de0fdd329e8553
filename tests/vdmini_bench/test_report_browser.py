"""The report as a person meets it, in a real browser where there is one: in step, by keys, on a phone, and soon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browser, why_no_browser
from PIL import Image
from reported_runs import HOSTILE, MODELS, write_alternatives, write_run, write_study

from vdmini_bench.report.page import write_report

READY = "document.getElementById('player')?.dataset.ready === 'true'"
# The grey in the middle of each canvas that is shown.
GREYS = """[...document.querySelectorAll('.example:not([hidden]) canvas')].map(
    canvas => canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0])"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if (reason := why_no_browser()) is not None:
        pytest.skip(reason)
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def show(page: Browser, folder: Path, still: bool = True) -> str:
    motion = [{"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}]
    page.order("Emulation.setEmulatedMedia", features=motion)
    page.events.clear()
    address = write_report(folder).as_uri()
    page.order("Page.navigate", url=address)
    page.wait_for(READY)
    return address


def expected(frame: int) -> list[int]:
    """The clips' greys, the difference between student and teacher, and none of motion; see `write_examples`."""
    return [20 * place + 10 * frame for place in range(len(MODELS))] + [4 * 20 * 2, 0]


def test_all_clips_stand_at_one_frame_and_keys_move_them(page: Browser, tmp_path: Path) -> None:
    show(page, write_run(tmp_path, ("a", "b")))
    assert page.evaluate(GREYS) == expected(0) * 2
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0), ("ArrowLeft", 4)):
        page.press(key)
        assert page.evaluate(GREYS) == expected(frame) * 2, key
    page.press(" ")
    assert page.evaluate("play.textContent") == "Pause"
    page.wait_for("at.textContent !== '5 of 5'")
    seen = page.evaluate(f"[Number(frame.value), ...{GREYS}]")
    assert seen[1:] == expected(seen[0]) * 2
    page.press(" ")
    assert page.evaluate("play.textContent") == "Play"
    page.evaluate("chosen.value = '1'; chosen.dispatchEvent(new Event('change'))")
    assert page.evaluate("[...document.querySelectorAll('.example:not([hidden]) h3')].map(h => h.textContent)") == [
        "seed 1: b"
    ]


SHOWN = """[...document.querySelectorAll('.example figure:not([hidden]) canvas')].map(
    canvas => canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0])"""


def test_rows_are_chosen_and_differences_are_of_the_row_in_the_list(page: Browser, tmp_path: Path) -> None:
    show(page, write_alternatives(tmp_path))
    # Greys rise by 20 a row; the last row is 80 above the baseline, and four times that is white.
    assert page.evaluate(SHOWN) == [0, 20, 40, 60, 80, 255, 0] * 2
    choose = "other.value = '{}'; other.dispatchEvent(new Event('change'))"
    page.evaluate(choose.format(1))
    assert page.evaluate(SHOWN) == [0, 20, 40, 60, 80, 80, 0] * 2
    captions = page.evaluate("[...document.querySelectorAll('[data-difference] figcaption')].map(e => e.textContent)")
    assert captions[0] == "6 steps and teacher: content, difference x4"
    for place in (0, 3):
        page.evaluate(f"document.querySelector('input.row[value=\"{place}\"]').click()")
    assert page.evaluate(SHOWN) == [20, 40, 80, 80, 0] * 2
    page.press("ArrowRight")
    page.evaluate("document.querySelector('input.row[value=\"3\"]').click()")
    assert page.evaluate(SHOWN) == [30, 50, 70, 90, 80, 0] * 2
    assert not page.told("Runtime.exceptionThrown")


def test_clips_play_at_once_unless_motion_is_unwanted(page: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    show(page, folder, still=False)
    page.wait_for("at.textContent !== '1 of 5'")
    show(page, folder)
    assert page.evaluate("play.textContent") == "Play"


def test_every_control_is_reached_by_tab_and_has_a_name(page: Browser, tmp_path: Path) -> None:
    write_study(tmp_path / "importance" / "svd")
    show(page, write_run(tmp_path))
    reached = []
    for _ in range(40):
        page.order("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        page.order("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert {"play", "back", "forward", "frame", "speed", "chosen", "Scores", "Importance of blocks"} <= {*reached}
    controls = "[...document.querySelectorAll('button, select, input')]"
    names = page.evaluate(f"{controls}.map(e => e.ariaLabel || e.labels[0]?.textContent || e.textContent)")
    # Six, a box for each row, and the list of rows to take differences of.
    assert len(names) == 6 + len(MODELS) + 1
    assert all(names)


def test_no_prompt_runs_and_nothing_is_loaded_or_refused(page: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path, HOSTILE, name="<img src=x onerror=document.title='run'>")
    address = show(page, folder)
    assert page.evaluate("document.title").startswith("ucf101, profile embedded: <img src=x")
    assert page.evaluate("document.querySelectorAll('h3')[1].textContent") == f"seed 1: {HOSTILE[1]}"
    loaded = [event["request"]["url"] for event in page.told("Network.requestWillBeSent")]
    assert loaded[0] == address
    assert all(url.startswith("data:image/webp") for url in loaded[1:])
    assert not page.told("Log.entryAdded")
    assert not page.told("Runtime.exceptionThrown")


def test_a_script_that_got_in_would_not_run(page: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    path = write_report(folder)
    attack = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\"><p style='color:red'>"
    path.write_text(path.read_text().replace("<main>", f"<main>{attack}"))
    page.events.clear()
    page.order("Page.navigate", url=path.as_uri())
    page.wait_for(READY)
    assert page.evaluate("document.title") != "run"
    page.wait_for("true")
    assert len([entry for entry in page.told("Log.entryAdded") if "Content Security Policy" in str(entry)]) >= 3


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_only_downwards(page: Browser, tmp_path: Path, width: int) -> None:
    write_study(tmp_path / "importance" / "svd")
    folder = write_run(tmp_path, ("a" * 200, *HOSTILE))
    page.order("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=2, mobile=True)
    try:
        show(page, folder)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        sizes = page.evaluate("[...document.querySelectorAll('button, select')].map(e => e.offsetHeight)")
        assert min(sizes) >= 44
    finally:
        page.order("Emulation.clearDeviceMetricsOverride")


def test_a_page_of_its_largest_size_opens_in_two_seconds(page: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path, ("a", "b"))
    record = json.loads((folder / "examples" / "examples.json").read_text())
    record |= {"frames": 16, "width": 320, "height": 180, "columns": 4}
    (folder / "examples" / "examples.json").write_text(json.dumps(record))
    random = np.random.default_rng(0)
    for file in (folder / "examples").glob("*.webp"):
        noise = random.integers(0, 256, (4 * 180, 4 * 320, 3), np.uint8)
        Image.fromarray(noise).save(file, quality=98, method=0)
    size = write_report(folder).stat().st_size
    assert 9e6 < size < 15e6
    started = time.monotonic()
    show(page, folder)
    seconds = time.monotonic() - started
    # Of the page's own clock: until all is read, and until all clips stand at their first frame.
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert loaded < 2000, (loaded, seconds)
