"""The page and its key: what they hold, and what the page does not."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from amfast.errors import RunError, UsageError
from amfast.evaluation.pictures import class_latents, sample_bytes
from amfast.evaluation.rank import rank_run
from amfast.evaluation.subject import open_subject
from amfast.generators import load_generator
from amfast.study import Study, make, make_study
from amfast.study.key import Key, hash_images, read_key
from amfast.study.panels import MOST_BYTES, encode_pair


def page_data(page: Path) -> Any:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def panels(page: Path) -> list[list[bytes]]:
    return [
        [base64.b64decode(uri.removeprefix("data:image/webp;base64,")) for uri in shown["panels"]]
        for shown in page_data(page)["questions"]
    ]


def test_two_questions_of_every_class_on_its_best_trial(study: Study, finished: Path) -> None:
    asked = sorted((q.class_id, q.kind) for q in study.key.questions)
    assert asked == [(i, kind) for i in (3, 11) for kind in ("diversity", "realism")]
    best = {ranked.class_id: ranked.best for ranked in rank_run(finished)}
    assert {q.class_id: q.trial for q in study.key.questions} == best
    shown = page_data(study.page)["questions"]
    assert [(q["kind"], q["name"]) for q in shown] == [
        (q.kind, q.name) for q in study.key.questions
    ]


def test_the_key_says_whose_panel_is_on_which_side(study: Study, finished: Path) -> None:
    """Each panel is drawn anew from the embedding the key names, on the same latents for both."""
    subject = open_subject(finished, device="cpu")
    targets = {target.class_id: target for target in subject.targets}
    for question, (left, right) in zip(study.key.questions, panels(study.page), strict=True):
        latents = class_latents(subject.generator, question.class_id, 73, study.key.seed)
        rows = latents[:64] if question.kind == "diversity" else latents[64:]
        drawn = {
            "original": subject.generator.class_embeddings[question.class_id],
            "am": targets[question.class_id].embedding,
        }
        images = {n: sample_bytes(subject.generator, v, rows) for n, v in drawn.items()}
        one, other = images[question.left.set], images[question.right.set]
        assert one is not None and other is not None
        assert (left, right) == encode_pair(one, other)
        for side, panel in ((question.left, left), (question.right, right)):
            assert hashlib.sha256(panel).hexdigest() == side.sha256


def test_the_page_does_not_say_which_side_is_which(study: Study) -> None:
    data = page_data(study.page)
    assert data.keys() == {"study", "questions"}
    assert all(shown.keys() == {"kind", "name", "panels"} for shown in data["questions"])
    text = re.sub(r"data:image/webp;base64,[\w+/=]+", "", study.page.read_text()).lower()
    for hint in ("embedding", "trial", "biggan", '"am"', "fingerprint", 'sha256":', "seed"):
        assert hint not in text
    for panel in (panel for pair in panels(study.page) for panel in pair):
        assert not Image.open(io.BytesIO(panel)).info.keys() & {"exif", "xmp", "icc_profile"}


def test_equal_seeds_give_equal_studies_and_others_other_sides(run: Path, study: Study) -> None:
    again = make_study(run, seed=study.key.seed, device="cpu")
    assert again.page == run / "study" / "index.html"
    assert again.page.read_bytes() == study.page.read_bytes()
    same = {"created": "", "created_ms": 0}
    assert again.key.model_copy(update=same) == study.key.model_copy(update=same)
    other = make_study(run, out=run / "other", seed=study.key.seed + 1, device="cpu")
    assert other.key.study != study.key.study


def test_sides_and_order_are_decided_by_the_seed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many seeds both sides come up, in no step with the order or the other kind."""
    subject = open_subject(run, device="cpu")
    monkeypatch.setattr(make, "open_subject", lambda *a, **o: subject)
    monkeypatch.setattr(make, "encode_pair", lambda left, right: (b"left", b"right"))
    made = []
    for seed in range(16):
        found = make_study(run, out=run / f"s{seed}", classes="star", seed=seed, device="cpu")
        made.append({q.kind: (q.left.set, q.question) for q in found.key.questions})
    assert {sides["diversity"][0] for sides in made} == {"original", "am"}
    assert {(s["diversity"][0] == s["realism"][0], s["diversity"][1]) for s in made} == {
        (same, place) for same in (True, False) for place in (1, 2)
    }


def test_without_a_seed_one_is_drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make.secrets, "randbelow", lambda below: below - 1)
    assert make_study(run, classes="3", device="cpu").key.seed == 2**32 - 1


def test_the_key_is_read_back_as_it_was_written(study: Study) -> None:
    key = read_key(study.key_path)
    assert key == study.key and key.generator == "embedded"
    fingerprint = load_generator("embedded", device="cpu").spec.fingerprint
    assert key.generator_fingerprint == fingerprint


def swap(question: dict[str, Any]) -> None:
    """Let AM's answers count for the original."""
    left, right = question["left"], question["right"]
    left["set"], right["set"] = right["set"], left["set"]


NONE_ASKED = hash_images([])
NO_QUESTIONS = {"questions": [], "images_sha256": NONE_ASKED, "study": NONE_ASKED[:16]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda key: key["questions"].pop(), "is damaged"),
        (lambda key: key["questions"].reverse(), "is damaged"),
        (lambda key: key["questions"][0]["left"].update(sha256="0" * 64), "is damaged"),
        (lambda key: key["questions"][0]["left"].update(key["questions"][0]["right"]), "damaged"),
        (lambda key: swap(key["questions"][1]), "is damaged"),
        (lambda key: key.update(seed=key["seed"] + 1), "is damaged"),
        (lambda key: key.update(study=""), "is damaged"),
        (lambda key: key.update(NO_QUESTIONS), "is damaged"),
        (lambda key: key.update(format="amfast-run"), "is not the key of a study: format"),
        (lambda key: key.update(seed="7"), "is not the key of a study: seed"),
    ],
)
def test_a_damaged_key_is_refused(study: Study, tmp_path: Path, change: Any, said: str) -> None:
    value = json.loads(study.key_path.read_text())
    change(value)
    path = tmp_path / "key.json"
    path.write_text(json.dumps(value))
    with pytest.raises(RunError, match=said):
        read_key(path)


def test_a_study_is_never_written_over(run: Path) -> None:
    (run / "study").mkdir()
    with pytest.raises(RunError, match="study exists already: choose another name"):
        make_study(run, device="cpu")
    with pytest.raises(RunError, match="cannot write .*nowhere/study: no such file"):
        make_study(run, out=run / "nowhere" / "study", device="cpu")
    assert not list((run / "study").iterdir())


def test_refused_options(run: Path) -> None:
    for options, said in (
        ({"seed": -1}, "seed is -1"),
        ({"classes": "disk"}, "unknown class 'disk'"),
        ({"classes": "0"}, "holds no embedding of class 0"),
        ({"classes": ","}, "no class was selected"),
        ({"min_target_prob": 2}, "min-target-prob is 2"),
    ):
        with pytest.raises(UsageError, match=said):
            make_study(run, device="cpu", **options)  # type: ignore[arg-type]
    assert not (run / "study").exists()


def test_of_many_classes_fifty_are_drawn_and_too_many_refused(finished: Path) -> None:
    """A generator of 120 classes: no image is drawn to choose among them."""
    subject = open_subject(finished, device="cpu")
    generator = subject.generator
    spec = replace(generator.spec, labels=tuple(f"c{i}" for i in range(120)))
    generator.spec = spec  # type: ignore[misc]
    many = [replace(subject.targets[0], class_id=i, name=f"c{i}") for i in range(120)]
    subject = replace(subject, targets=many)
    chosen, notes = make._choose(subject, "all", make.random.Random(0))
    again, _ = make._choose(subject, "all", make.random.Random(0))
    other, _ = make._choose(subject, "all", make.random.Random(1))
    ids = [target.class_id for target in chosen]
    assert ids == sorted(set(ids)) == [t.class_id for t in again] and len(ids) == 50
    assert ids != [target.class_id for target in other]
    assert "of 120 classes, 50 were drawn by the seed" in notes[0]
    assert len(make._choose(subject, "0-99", make.random.Random(0))[0]) == 100
    with pytest.raises(UsageError, match="101 classes are 202 questions"):
        make._choose(subject, "0-100", make.random.Random(0))


def test_a_class_that_the_generator_lacks_is_left_out(finished: Path) -> None:
    subject = open_subject(finished, device="cpu")
    alien = replace(subject.targets[0], class_id=12, name="spiral")
    both = replace(subject, targets=[alien, subject.targets[1]])
    chosen, notes = make._choose(both, "all", make.random.Random(0))
    assert [target.class_id for target in chosen] == [11]
    assert notes == ["left out spiral: embedded has no such class as trained to compare with"]
    with pytest.raises(UsageError, match="embedded has no class spiral as trained"):
        make._choose(both, "spiral", make.random.Random(0))
    with pytest.raises(RunError, match="nothing to ask about"):
        make._choose(replace(subject, targets=[alien]), "all", make.random.Random(0))


def test_images_that_are_not_finite_are_refused(
    run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "sample_bytes", lambda *arguments: None)
    with pytest.raises(RunError, match="original embedding of class 3 star gives images that are"):
        make_study(run, device="cpu")
    assert not (run / "study").exists()


def test_panels_at_256_pixels_stay_small_and_both_sides_alike() -> None:
    """Beside a panel that is hard to encode, an easy one is encoded as coarsely."""
    hard, easy = (
        torch.nn.functional.interpolate(
            torch.rand(64, 3, points, points) * 255, 256, mode="bilinear"
        ).to(torch.uint8)
        for points in (32, 4)
    )
    left, right = encode_pair(hard, easy)
    assert len(right) < len(left) <= MOST_BYTES
    assert Image.open(io.BytesIO(left)).size == Image.open(io.BytesIO(right)).size == (768, 768)
    assert len(right) < 0.8 * len(encode_pair(easy, easy)[0])
    assert encode_pair(easy, hard) == (right, left)


def test_a_panel_has_its_images_row_by_row() -> None:
    images = torch.arange(9, dtype=torch.uint8).mul(25)[:, None, None, None].expand(9, 3, 64, 64)
    panel, _ = encode_pair(images, images)
    picture = Image.open(io.BytesIO(panel))
    assert picture.size == (192, 192)
    seen = [picture.getpixel((64 * (i % 3) + 32, 64 * (i // 3) + 32))[0] for i in range(9)]
    assert all(abs(found - 25 * i) <= 3 for i, found in enumerate(seen))


def test_hostile_names_stay_text(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "</script><script>alert(1)</script>"
    opened = open_subject(run, device="cpu")
    target = replace(opened.targets[0], name=hostile)
    labels = tuple(hostile if i == 3 else n for i, n in enumerate(opened.generator.spec.labels))
    opened.generator.spec = replace(opened.generator.spec, labels=labels)  # type: ignore[misc]
    monkeypatch.setattr(make, "open_subject", lambda *a, **o: replace(opened, targets=[target]))
    made = make_study(run, device="cpu")
    assert hostile not in made.page.read_text()
    assert {shown["name"] for shown in page_data(made.page)["questions"]} == {hostile}
    assert sorted(p.name for p in (run / "study").iterdir()) == ["index.html", "key.json"]
    assert Key.model_validate_json(made.key_path.read_bytes()).questions[0].name == hostile
