"""The page of votes as a person meets it, in a real browser where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser, why_no_browser
from click.testing import CliRunner
from reported_runs import HOSTILE, MODELS, write_run

from vdmini_bench.cli import main
from vdmini_bench.votes.ballot import KEY_FILE, Key, read_key
from vdmini_bench.votes.page import write_vote_page

# The grey in the middle of the left and of the right clip.
GREYS = """[...document.querySelectorAll('#pair canvas')].map(
    canvas => canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0])"""
KEPT = "JSON.parse(localStorage.getItem(`vdmini-votes-${vote.dataset.study}`))"
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowDown"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if (reason := why_no_browser()) is not None:
        pytest.skip(reason)
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.order("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        yield opened


def show(page: Browser, folder: Path) -> tuple[str, Key]:
    address = write_vote_page(folder).as_uri()
    page.events.clear()
    page.order("Page.navigate", url=address)
    shown(page, 1)
    return address, read_key(folder / KEY_FILE)


def shown(page: Browser, pair: int) -> list[str]:
    """Wait until a pair can be judged; the names of its clips, the left one first."""
    page.wait_for(f"document.readyState === 'complete' && vote.dataset.shown === '{pair}'")
    kept = page.evaluate(KEPT)
    place = kept["order"][pair - 1]
    names = page.evaluate(f"[pairs.children[{place}].dataset.first, pairs.children[{place}].dataset.second]")
    return [*reversed(names)] if kept["swapped"][place] else list(names)


def choice_of(key: Key, left: str, right: str) -> str:
    """Somebody who looks: whole clips before spoilt ones, then the teacher before all others, which tie."""
    if key.clips[left].spoilt or key.clips[right].spoilt:
        return "right" if key.clips[left].spoilt else "left"
    best = [name for name in (left, right) if key.clips[name].model == "teacher"]
    return "tie" if not best else "left" if best[0] == left else "right"


def saved(page: Browser, folder: Path) -> dict[str, Any]:
    """The file that the page's button saves."""
    page.order("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
    page.events.clear()
    page.evaluate("save.click()")
    page.wait_for("true")
    for _ in range(200):
        found = [*folder.glob("votes-*.json")]
        if found and found[0].read_text(encoding="utf-8").endswith("}\n"):
            return {"path": found[0], **json.loads(found[0].read_text(encoding="utf-8"))}
        page.wait_for("new Promise(done => setTimeout(() => done(true), 20))")
    pytest.fail(f"nothing was saved: {[*folder.iterdir()]}")


def test_votes_by_keys_survive_a_reload_and_merge(page: Browser, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "results", ("a red ball", HOSTILE[1]))
    address, key = show(page, folder)
    page.evaluate("voter.value = 'Änne/1'; voter.dispatchEvent(new Event('input'))")
    given = []
    for number in range(1, len(key.pairs) + 1):
        left, right = shown(page, number)
        given.append({"left": left, "right": right, "choice": choice_of(key, left, right)})
        page.press(KEYS[given[-1]["choice"]])
        if number == 3:
            page.order("Page.reload")
            shown(page, 4)
        if number == 5:
            page.press("Backspace")
            assert shown(page, 5) == [left, right]
            page.press(KEYS[given[-1]["choice"]])
    page.wait_for("!done.hidden && judging.hidden")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    file = saved(page, downloads)
    assert (file["voter"], file["study"], file["votes"]) == ("Änne/1", key.study, given)
    # Neither a vote nor the file went anywhere: all that was loaded is in the page, or was made by it.
    loaded = [event["request"]["url"] for event in page.told("Network.requestWillBeSent")]
    assert all(url.startswith(("data:image/webp", "blob:")) or url == address for url in loaded)
    assert not page.told("Runtime.exceptionThrown")
    done = CliRunner().invoke(main, ["votes", "merge", str(file["path"]), "--results", str(tmp_path / "results")])
    assert done.exit_code == 0, done.output
    # It won all of 3 votes on either prompt, which no finite score says; the others tied.
    assert "no finite score beside teacher: 0 won, 4 tied, 2 lost" in done.output


def test_nothing_is_loaded_and_no_prompt_runs(page: Browser, tmp_path: Path) -> None:
    address, _ = show(page, write_run(tmp_path, HOSTILE, name="<img src=x onerror=document.title='run'>"))
    assert page.evaluate("document.title") == "Which clip is better?"
    loaded = [event["request"]["url"] for event in page.told("Network.requestWillBeSent")]
    assert loaded[0] == address
    assert all(url.startswith("data:image/webp") for url in loaded[1:])
    assert not page.told("Log.entryAdded")
    assert not page.told("Runtime.exceptionThrown")
    # The key is not in the page.
    assert not [model for model in MODELS if model in page.evaluate("document.documentElement.outerHTML")]


def test_each_voter_has_an_order_and_sides_of_their_own(page: Browser, tmp_path: Path) -> None:
    show(page, write_run(tmp_path, ("a", "b", "c")))
    page.press("ArrowLeft")
    shown(page, 2)
    before = page.evaluate(KEPT)
    page.evaluate("window.confirm = () => true; anew.click()")
    shown(page, 1)
    after = page.evaluate(KEPT)
    assert after["choices"] == []
    assert sorted(after["order"]) == sorted(before["order"])
    assert all(before[what] != after[what] for what in ("voter", "order", "swapped"))


def test_space_plays_the_pair_and_a_click_leaves_it_the_key(page: Browser, tmp_path: Path) -> None:
    show(page, write_run(tmp_path, ("a",)))
    first = page.evaluate(GREYS)
    page.press(" ")
    page.wait_for(f"JSON.stringify({GREYS}) !== '{json.dumps(first, separators=(',', ':'))}'")
    page.press(" ")
    assert page.evaluate("play.textContent") == "Play"
    x, y = page.evaluate("(() => { const b = document.querySelector('[data-choice=tie]').getBoundingClientRect();"
                         " return [b.x + b.width / 2, b.y + b.height / 2]; })()")  # fmt: skip
    for kind in ("mousePressed", "mouseReleased"):
        page.order("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    shown(page, 2)
    page.press(" ")
    assert page.evaluate("play.textContent") == "Pause"
    assert page.evaluate(KEPT)["choices"] == ["tie"]


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_both_clips_and_all_choices_are_seen_at_once(page: Browser, tmp_path: Path, width: int) -> None:
    page.order("Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=2, mobile=True)
    try:
        show(page, write_run(tmp_path, ("a" * 200,)))
        assert page.evaluate("document.documentElement.scrollWidth") == width
        seen = page.evaluate("[...document.querySelectorAll('#pair canvas, [data-choice]')].map("
                             "e => (({bottom, height}) => [bottom, height])(e.getBoundingClientRect()))")  # fmt: skip
        assert max(bottom for bottom, _ in seen) <= 740
        assert min(height for _, height in seen) >= 44
        controls = page.evaluate("[...document.querySelectorAll('button, input')].map(e => e.offsetHeight)")
        assert min(controls) >= 44
    finally:
        page.order("Emulation.clearDeviceMetricsOverride")


def test_every_control_is_reached_by_tab_and_has_a_name(page: Browser, tmp_path: Path) -> None:
    show(page, write_run(tmp_path, ("a",)))
    reached = []
    for _ in range(9):
        page.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent || document.activeElement.id"))
    assert {"Left is better", "No difference", "Right is better", "Play", "Save votes", "voter"} <= {*reached}
