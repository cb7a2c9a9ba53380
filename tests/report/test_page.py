"""The report in a browser, as its readers use it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from amfast.report import write_report
from amfast.report.plan import plan_pictures
from amfast.report.write import render_report
from tests.browser import Visit
from tests.report.conftest import HOSTILE, EditRun, Noise, imagined


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the tiny run, elsewhere than in it."""
    return write_report(finished, out=tmp_path_factory.mktemp("report")).path


@pytest.fixture
def page(visit: Visit, written: Path) -> Page:
    return visit(written)


def names(page: Page) -> list[str]:
    """Of the classes that are shown, in their order, also of those that are not scrolled to yet."""
    return page.locator(".class:visible h3 bdi").all_text_contents()


def cards(page: Page) -> Locator:
    return page.locator(".trial:visible")


def pixels(page: Page, canvas: str) -> str:
    return str(page.locator(canvas).evaluate("canvas => canvas.toDataURL()"))


def drawn(page: Page, canvas: str) -> str:
    """The canvas once its strip is there: an empty one is 300 pixels wide."""
    page.wait_for_function("id => document.querySelector(id).width < 300", arg=canvas)
    return pixels(page, canvas)


def open_first(page: Page) -> Locator:
    page.locator(".open").first.click()
    return page.get_by_role("dialog")


def test_the_verdict_comes_first(page: Page) -> None:
    said = page.locator("h1").inner_text()
    assert re.fullmatch(r"[012] of 2 classes became more diverse", said)
    assert said in page.title()
    assert "None of the 4 trials failed." in page.locator(".findings").inner_text()
    above = page.locator("h1").bounding_box()
    below = page.locator("#realism").bounding_box()
    assert above and below and above["y"] < below["y"]


def test_every_embedding_has_a_picture_of_the_same_latents_with_its_figures(page: Page) -> None:
    page.locator(".class").last.scroll_into_view_if_needed()
    images = page.locator(".card img")
    assert images.count() == 6
    for image in images.all():
        image.scroll_into_view_if_needed()
        page.wait_for_function("image => image.naturalWidth === 256", arg=image.element_handle())
        said = image.get_attribute("alt") or ""
        assert re.match(r"(star|hourglass)(, trial [01]| as trained): 8 images; target prob", said)
        assert re.search(r"pairwise distance \d\.\d{3}$", said)


def test_search_by_name_and_number(page: Page) -> None:
    shown = page.locator("#shown")
    assert shown.get_attribute("aria-live") == "polite"
    assert shown.inner_text() == "2 of 2 classes, 4 of 4 trials"
    page.get_by_label("Class", exact=True).fill("STAR")
    assert names(page) == ["star"]
    assert shown.inner_text() == "1 of 2 classes, 2 of 4 trials"
    page.get_by_label("Class", exact=True).fill("11")
    assert names(page) == ["hourglass"]
    page.get_by_label("Class", exact=True).fill("(")
    assert names(page) == [] and shown.inner_text() == "0 of 2 classes, 0 of 4 trials"
    page.get_by_label("Class", exact=True).press("Enter")
    assert "?" not in page.url


def gains(items: Locator) -> list[float]:
    return [float(item.get_attribute("data-gain") or "nan") for item in items.all()]


def test_order(page: Page) -> None:
    order = page.get_by_label("Order", exact=True)
    found = gains(page.locator(".class"))
    assert found == sorted(found, reverse=True)
    order.select_option("loss")
    found = gains(page.locator(".class"))
    assert found == sorted(found)
    first = gains(page.locator(".class").first.locator(".trial"))
    assert first == sorted(first)
    order.select_option("name")
    assert names(page) == ["hourglass", "star"]
    order.select_option("number")
    assert names(page) == ["star", "hourglass"]
    assert page.locator(".cards > :first-child.own").count() == 2


def test_filter_by_gain(page: Page) -> None:
    of_trials = gains(page.locator(".trial"))
    show = page.get_by_label("Show", exact=True)
    show.select_option("up")
    assert cards(page).count() == sum(gain > 0 for gain in of_trials)
    show.select_option("not-up")
    assert cards(page).count() == sum(gain <= 0 for gain in of_trials)
    show.select_option("best")
    assert cards(page).count() == 2
    show.select_option("failed")
    assert cards(page).count() == 0
    show.select_option("all")
    assert cards(page).count() == 4


def test_the_sliders_change_what_is_shown(page: Page) -> None:
    large = open_first(page)
    assert large.is_visible()
    assert re.fullmatch(r"\w+, trial [01]", large.locator("h2").inner_text())
    before = drawn(page, "#latent-trial"), drawn(page, "#latent-original")
    slider = page.locator("#latent")
    slider.focus()
    slider.press("ArrowRight")
    assert page.locator("#latent-at").inner_text() == "25 % from number 1 to 2"
    assert slider.get_attribute("aria-valuetext") == "25 % from number 1 to 2"
    assert "latent 25 % from" in (page.locator("#latent-trial").get_attribute("aria-label") or "")
    after = pixels(page, "#latent-trial"), pixels(page, "#latent-original")
    assert before[0] != after[0] and before[1] != after[1]
    slider.press("End")
    assert page.locator("#latent-at").inner_text() == "number 4"

    reached = drawn(page, "#embedding-trial")
    assert page.locator("#embedding-at").inner_text() == "this trial"
    page.locator("#embedding").press("Home")
    assert page.locator("#embedding-at").inner_text() == "as trained"
    assert pixels(page, "#embedding-trial") != reached
    assert pixels(page, "#latent-trial") != after[0]


def test_the_large_view_moves_on_to_the_trials_that_are_shown(page: Page) -> None:
    page.get_by_label("Class", exact=True).fill("star")
    large = open_first(page)
    first = large.locator("h2").inner_text()
    picture = drawn(page, "#latent-trial")
    assert large.locator("polyline.this").count() == 2
    assert large.locator("polyline").count() == 4
    assert page.get_by_role("button", name="Previous trial").is_disabled()
    page.get_by_role("button", name="Next trial").click()
    assert large.locator("h2").inner_text() != first
    page.wait_for_function(
        "was => document.getElementById('latent-trial').toDataURL() !== was", arg=picture
    )
    assert page.get_by_role("button", name="Next trial").is_disabled()
    assert "Distance" in large.inner_text() and "Probability" in large.inner_text()


def test_a_mark_of_a_chart_opens_its_trial(page: Page) -> None:
    mark = page.locator("svg.chart .mark[data-trial='3']").first
    said = (mark.locator("title").text_content() or "").split(":")[0]
    assert said == "hourglass, trial 1"
    mark.dispatch_event("click")
    assert page.get_by_role("dialog").locator("h2").inner_text() == said


def test_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#filter").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('open')")
    opened = page.evaluate("document.activeElement.closest('.trial').dataset.trial")
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"close", "latent", "embedding"} <= reached
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    assert page.evaluate("document.activeElement.closest('.trial').dataset.trial") == opened


def test_dark_mode(visit: Visit, written: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    assert visit(written).evaluate(ground) == "rgb(255, 255, 255)"
    assert visit(written, dark=True).evaluate(ground) == "rgb(20, 22, 26)"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_scrolls_sideways(visit: Visit, written: Path, width: int) -> None:
    page = visit(written, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    large = open_first(page)
    assert large.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0


def test_print_holds_the_classes_and_no_controls(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".controls").is_hidden() and page.locator(".contents").is_hidden()
    assert page.locator(".card:visible").count() == 6
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 30, 36)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_less_motion_is_respected(chromium: Browser, written: Path) -> None:
    with chromium.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(written.as_uri())
        moving = "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e)"
        for what in ("transitionDuration", "animationDuration"):
            assert page.evaluate(f"{moving}.{what} !== '0s').length") == 0


def test_hostile_names_are_text(edit: EditRun, visit: Visit, tmp_path: Path) -> None:
    def rename(summary: dict[str, object]) -> None:
        for entry in summary["classes"]:  # type: ignore[attr-defined]
            entry["name"] = HOSTILE[entry["class_id"]]

    page = visit(write_report(edit("summary.json", rename)).path)
    assert set(names(page)) == {HOSTILE[3], '../../x" onclick="y\\x1b[2J\\x202egnp.exe'}
    page.get_by_label("Class", exact=True).fill("alert(1)")
    assert names(page) == [HOSTILE[3]]
    assert open_first(page).locator("h2").inner_text().startswith(HOSTILE[3])
    assert page.locator("[onclick]").count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", name) for name in ids)
    assert len(ids) == len(set(ids))


def test_failed_trials_and_classes_that_are_new(edit: EditRun, visit: Visit) -> None:
    def change(summary: dict[str, object]) -> None:
        star, hourglass = summary["classes"]  # type: ignore[misc]
        star["original"] = None
        hourglass["trials"][1] |= {"failed_at": 2, "score": None}

    page = visit(write_report(edit("summary.json", change)).path)
    assert "1 of 4 trials failed" in page.locator(".findings").inner_text()
    assert "hourglass trial 1 at step 2" in page.locator(".findings").inner_text()
    page.get_by_label("Show", exact=True).select_option("failed")
    assert cards(page).count() == 1
    page.locator(".open:visible").click()
    assert "Failed at step 2" in page.get_by_role("dialog").inner_text()
    assert "has no sliders" in page.get_by_role("dialog").inner_text()


def test_an_evaluation_gives_real_images_a_place(edit: EditRun, visit: Visit) -> None:
    def measures(lpips: float, top1: float, fid: float | None = None) -> list[dict[str, object]]:
        found = {"lpips[alex]": lpips, "top1[alexnet]": top1, "fid[inception]": fid}
        return [{"name": name, "value": v} for name, v in found.items() if v is not None]

    sets = {
        "original": measures(0.3, 0.5, 40.0),
        "am": measures(0.5, 0.9, 50.0),
        "real": measures(0.6, 1.0),
    }
    run = edit("summary.json", lambda summary: None)
    evaluation = {
        "against": "photos",
        "images_per_class": 50,
        "classes": [{"name": "star", "sets": sets}],
        "overall": {"sets": sets, "gap_closed_percent": {"lpips[alex]": {"am": 66.7}}},
        "notes": ["a note on that"],
    }
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    page = visit(write_report(run).path)
    said = page.locator(".findings").inner_text()
    assert "better over all classes: LPIPS 0.30 → 0.50 (real 0.60), accuracy 0.50 → 0.90" in said
    assert "worse over all classes: FID 40.00 → 50.00." in said
    row = page.locator(".measures tbody tr").first.inner_text()
    assert re.sub(r"\s+", " ", row) == "LPIPS [alex] ↑ 0.300 0.500 0.600 67 %"
    assert page.locator("svg .mark.real").count() == 2 and page.locator(".guide.real").count() == 2
    assert "a note on that" in page.locator("#realism ~ .notes").inner_text()


def test_five_thousand_trials(finished: Path, tmp_path: Path, visit: Visit) -> None:
    """Of a thousand classes: the page stays under ten megabytes, and can be searched and opened."""
    run, noise = imagined(finished, 1000, 5), Noise(48)
    plan = plan_pictures(5000, 1000, 48)
    path = tmp_path / "index.html"
    path.write_text(render_report(run, noise, plan))
    assert path.stat().st_size < 10_000_000
    page = visit(path)
    assert "only the best trial of each class has pictures" in page.locator(".notes").inner_text()
    page.locator("#search").fill("class 99")
    assert page.locator("#shown").inner_text() == "11 of 1000 classes, 55 of 5000 trials"
    page.locator(".open:visible").first.click()
    assert "has no sliders" in page.locator("#large").inner_text()
