"""The survey as a participant meets it, in Chromium, from start to downloaded answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from amfast.evaluation.subject import open_subject
from amfast.study import Study, make, make_study, score_study
from tests.browser import Visit


def begin(page: Page) -> None:
    page.get_by_role("button", name="Begin").click()


def download(page: Page, path: Path) -> Any:
    with page.expect_download() as started:
        page.get_by_role("button", name="Download answers").click()
    started.value.save_as(path)
    return json.loads(path.read_text())


def reload(page: Page, said: str) -> None:
    """Reloads until the page says so.

    Chromium stores an answer through a process of its own; a page that starts in the very moment
    may be there before it.
    """
    for _ in range(20):
        page.reload()
        if said in page.locator("#keeping").inner_text():
            return
        page.wait_for_timeout(250)
    pytest.fail(f"the page never said {said!r} but {page.locator('#keeping').inner_text()!r}")


def pressed(page: Page) -> list[int]:
    return [
        i
        for i, button in enumerate(page.locator("#scale button").all(), start=1)
        if button.get_attribute("aria-pressed") == "true"
    ]


def test_from_start_to_answers_that_score(visit: Visit, study: Study, tmp_path: Path) -> None:
    page = visit(study.page)
    assert "Your progress is kept in this browser" in page.locator("#keeping").inner_text()
    begin(page)
    for number, question in enumerate(study.key.questions, start=1):
        assert page.locator("#number").inner_text() == f"Question {number} of 4"
        asked = page.locator("#question").inner_text()
        assert f"“{question.name}”" in asked
        assert ("diverse" in asked) == (question.kind == "diversity")
        for side, image in zip(("Left", "Right"), page.locator(".panels img").all(), strict=True):
            count = 64 if question.kind == "diversity" else 9
            assert image.get_attribute("alt") == f"{side} panel: {count} images"
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        forward = page.locator("#next")
        assert forward.is_disabled() and pressed(page) == []
        # The participant finds AM's panel clearly the better one each time.
        value = 1 if question.left.set == "am" else 5
        page.locator("#scale button").nth(value - 1).click()
        assert pressed(page) == [value]
        forward.click()
    assert page.get_by_role("heading", name="All 4 questions are answered").is_visible()
    path = tmp_path / "answers.json"
    given = download(page, path)
    assert given["study"] == study.key.study
    assert f"answers-{study.key.study[:8]}-{given['participant'][:8]}.json" in (
        page.locator("#downloaded").inner_text()
    )
    found = score_study([path], key=study.key_path)
    assert [(kind.mean, kind.won, kind.answers) for kind in found.kinds] == [(1, 2, 2), (1, 2, 2)]


def test_a_reload_keeps_progress_and_a_changed_answer_counts(
    visit: Visit, study: Study, tmp_path: Path
) -> None:
    page = visit(study.page)
    begin(page)
    for value in (2, 4):
        page.keyboard.press(str(value))
        page.locator("#next").click()
    reload(page, "Welcome back: 2 of 4 questions")
    page.get_by_role("button", name="Continue").click()
    assert page.locator("#number").inner_text() == "Question 3 of 4"
    page.locator("#back").click()
    assert pressed(page) == [4]
    page.locator("#scale button").nth(4).click()
    assert pressed(page) == [5]
    page.locator("#next").click()
    for value in (3, 1):
        page.keyboard.press(str(value))
        page.locator("#next").click()
    reload(page, "Welcome back: 4 of 4 questions")
    page.get_by_role("button", name="Continue").click()
    assert page.get_by_role("heading", name="All 4 questions are answered").is_visible()
    given = download(page, tmp_path / "answers.json")
    assert [answer["value"] for answer in given["answers"]] == [2, 5, 3, 1]
    assert score_study([tmp_path / "answers.json"], key=study.key_path).participants == 1


def test_the_keyboard_alone(visit: Visit, study: Study, tmp_path: Path) -> None:
    page = visit(study.page)
    page.keyboard.press("3")  # not yet a question
    page.keyboard.press("Tab")  # the link to the content
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#number").inner_text() == "Question 1 of 4"
    page.keyboard.press("ArrowRight")  # not before there is an answer
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("6")
    page.keyboard.press("Control+2")
    assert page.locator("#number").inner_text() == "Question 1 of 4" and pressed(page) == []
    for value in (5, 4, 3, 2):
        page.keyboard.press(str(value))
        assert pressed(page) == [value]
        page.keyboard.press("ArrowRight")
    assert page.locator("#end").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#number").inner_text() == "Question 4 of 4" and pressed(page) == [2]
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "download"
    with page.expect_download() as started:
        page.keyboard.press("Enter")
    started.value.save_as(tmp_path / "answers.json")
    given = json.loads((tmp_path / "answers.json").read_text())
    assert [answer["value"] for answer in given["answers"]] == [5, 4, 3, 1]


def test_a_panel_is_enlarged_and_its_keys_answer_nothing(visit: Visit, study: Study) -> None:
    page = visit(study.page)
    begin(page)
    page.get_by_role("button", name="Enlarge the right panel").click()
    large = page.get_by_role("dialog")
    assert large.is_visible()
    shown = large.locator("img").get_attribute("src")
    assert shown == page.locator(".panels img").nth(1).get_attribute("src")
    page.keyboard.press("4")
    page.keyboard.press("Escape")
    assert not large.is_visible() and pressed(page) == []
    page.keyboard.press("4")
    assert pressed(page) == [4]


def test_somebody_else_starts_anew(visit: Visit, study: Study, tmp_path: Path) -> None:
    page = visit(study.page)
    files = []
    for name in ("one.json", "two.json"):
        begin(page)
        for _ in study.key.questions:
            page.keyboard.press("3")
            page.keyboard.press("ArrowRight")
        assert page.locator("#restart").is_hidden()  # not before the answers are downloaded
        download(page, tmp_path / name)
        files.append(tmp_path / name)
        page.get_by_role("button", name="Start anew").click()
    assert score_study(files, key=study.key_path).participants == 2


ID = "0" * 32


@pytest.mark.parametrize(
    "stored",
    [
        "{",
        "null",
        "[]",
        '{"participant": "x", "started": 1, "answers": [], "at": 0}',
        f'{{"participant": "{ID}", "started": 1, "answers": [{{"value": 9, "at": 1}}], "at": 0}}',
        f'{{"participant": "{ID}", "started": 1, "answers": [null], "at": 0}}',
        f'{{"participant": "{ID}", "started": 1, "answers": [], "at": 3}}',
        f'{{"participant": "{ID}", "started": 0.5, "answers": [], "at": 0}}',
    ],
)
def test_what_the_page_did_not_keep_is_a_new_start(visit: Visit, study: Study, stored: str) -> None:
    page = visit(study.page)
    place = f"amfast-study-{study.key.study}"
    page.add_init_script(f"localStorage.setItem({json.dumps(place)}, {json.dumps(stored)})")
    page.reload()
    begin(page)
    assert page.locator("#number").inner_text() == "Question 1 of 4" and pressed(page) == []


def test_without_storage_the_page_says_so_and_works(
    chromium: Browser, study: Study, tmp_path: Path
) -> None:
    with chromium.new_context(accept_downloads=True) as context:
        context.add_init_script(
            "Object.defineProperty(window, 'localStorage', "
            "{ get() { throw new DOMException('denied', 'SecurityError'); } });"
        )
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(study.page.as_uri())
        assert "does not keep your progress" in page.locator("#keeping").inner_text()
        begin(page)
        for _ in study.key.questions:
            page.keyboard.press("2")
            assert page.locator("#lost").is_visible()
            page.keyboard.press("ArrowRight")
        download(page, tmp_path / "answers.json")
        assert not errors
    assert score_study([tmp_path / "answers.json"], key=study.key_path).participants == 1


def test_a_clock_that_is_set_back_makes_no_impossible_times(
    visit: Visit, study: Study, tmp_path: Path
) -> None:
    page = visit(study.page)
    begin(page)
    page.keyboard.press("1")
    page.evaluate("() => { const then = Date.now() - 3600000; Date.now = () => then; }")
    for _ in study.key.questions:
        page.keyboard.press("3")
        page.keyboard.press("ArrowRight")
    download(page, tmp_path / "answers.json")
    assert score_study([tmp_path / "answers.json"], key=study.key_path).participants == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_and_colours_follow_the_system(
    visit: Visit, study: Study, width: int, dark: bool
) -> None:
    page = visit(study.page, width=width, dark=dark)
    grounds = {page.evaluate("getComputedStyle(document.body).backgroundColor")}
    assert grounds == {"rgb(20, 22, 26)" if dark else "rgb(255, 255, 255)"}
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    begin(page)
    for _ in study.key.questions:
        assert page.evaluate(fits)
        left, right = page.locator(".panels img").all()
        one, other = left.bounding_box(), right.bounding_box()
        assert one and other and one["y"] == other["y"] and one["width"] == other["width"]
        assert one["x"] + one["width"] <= other["x"]  # beside each other, as left and right say
        last = page.locator("#scale").bounding_box()
        assert last and last["y"] + last["height"] <= 900  # seen without scrolling
        page.keyboard.press("3")
        page.keyboard.press("ArrowRight")
    assert page.evaluate(fits)


def test_hostile_names_are_text(visit: Visit, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "<script>alert(1)</script>../../x\u202e" + "W" * 200
    opened = open_subject(run, device="cpu")
    labels = tuple(hostile if i == 3 else n for i, n in enumerate(opened.generator.spec.labels))
    opened.generator.spec = replace(opened.generator.spec, labels=labels)  # type: ignore[misc]
    target = replace(opened.targets[0], name=hostile)
    monkeypatch.setattr(make, "open_subject", lambda *a, **o: replace(opened, targets=[target]))
    page = visit(make_study(run, device="cpu").page, width=390)
    begin(page)
    assert hostile in (page.locator("#question").text_content() or "")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("main script").count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id).join()")
    assert "alert" not in ids
