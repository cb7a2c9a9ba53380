from __future__ import annotations

import json

from amfast.classifiers import load_classifier
from tests.command import amfast, assert_refused


def test_every_class_of_a_classifier(tmp_path):
    done = amfast("classes", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    labels = load_classifier("embedded", device="cpu").spec.labels
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [
        [str(i), name] for i, name in enumerate(labels)
    ]


def test_search(invoke):
    answer = invoke("classes", "TRI", "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout) == [{"class_id": 2, "name": "triangle"}]
    unseen = invoke("classes", "trap", "--classifier", "embedded-unseen")
    assert unseen.stdout.split() == ["2", "trapezoid"]


def test_nothing_found(invoke):
    assert_refused(invoke("classes", "nematode"), 1, "no class of embedded has 'nematode'")
    answer = invoke("classes", "nematode", "--json")
    assert (answer.returncode, answer.stdout) == (1, "[]\n")


def test_unknown_classifier(invoke):
    assert_refused(invoke("classes", "--classifier", "vgg"), 2, "unknown classifier 'vgg'")
