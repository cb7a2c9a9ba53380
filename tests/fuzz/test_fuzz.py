"""A few bad inputs for everything that takes any, the same ones every time; ``campaign`` has more.

Each is taken or refused with a sentence: no other error, no file beside its own, no code of its
own, no memory beyond ``guard.SPACE`` and no end later than ``guard.SECONDS``.
"""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from amfast.errors import AmfastError
from tests.fuzz import guard
from tests.fuzz.guard import Breach, Hang, guarded
from tests.fuzz.target import Target
from tests.fuzz.targets import make_targets

EXAMPLES = 25
#: For which ``make_targets`` has nothing to say before it has made them all.
NAMES = (
    *("run.json", "run.json of a report", "note in run.json", "trial", "under-way", "embeddings"),
    *("summary.json", "evaluation.json", "evaluation.json of a plot", "lock", "measurement"),
    *("BigGAN", "BigGAN-deep", "config.json", "discriminator", "classifier", "archive"),
    *("archive, tensors alone", "pickle", "pickle, tensors alone", "zip with a member", "npy"),
    *("learned_embeds", "learned_embeds.bin", "amfast.json", "imported run.json", "key.json"),
    *("answers", "record of the store", "kept weights", "note of a download", "JPEG"),
    *("JPEG, progressive", "PNG", "GIF", "BMP", "TIFF", "WEBP", "class file", "amfast run"),
    *("amfast report", "amfast sample", "amfast diagnose", "amfast evaluate", "amfast rank"),
    *("amfast plot", "amfast reproduce", "amfast export", "amfast import", "amfast classes"),
    *("amfast doctor", "amfast study make", "amfast study score", "amfast weights list"),
    *("amfast weights fetch", "amfast weights verify", "amfast weights path", "make_config"),
    "make_sample_config",
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow and torch, about what is damaged


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in make_targets(tmp_path_factory.mktemp("fuzz"))}


def test_every_target_is_named(targets):
    assert tuple(targets) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_taken_or_refused(targets, name):
    target = targets[name]
    target.use(target.sound)  # what is imported once is imported now
    assert target.attempt(target.sound)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def attempt(value: object) -> None:
        target.attempt(value)

    attempt()


def breaches(folder: Path) -> dict[str, Callable[[], object]]:
    """What the guard has to see, each done for real."""
    outside = folder.parent / "outside"
    return {
        "open": lambda: outside.write_text("x"),
        "os.mkdir": lambda: (folder.parent / "made").mkdir(),
        "os.rename": lambda: (folder / "mine").rename(folder.parent / "theirs"),
        "os.system": lambda: os.system("true"),
        "subprocess.Popen": lambda: subprocess.run(["true"], check=True),
        "exec": lambda: exec("pass"),
        "import": lambda: __import__("this_is_no_module"),
        "pickle.find_class": lambda: pickle.loads(b"cos\ngetcwd\n."),
    }


@pytest.mark.parametrize("event", breaches(Path()))
def test_the_guard_sees(tmp_path, event):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "mine").write_text("x")
    with pytest.raises((Breach, ImportError)) as caught, guarded(folder):
        breaches(folder)[event]()
    # An error on the way out is the first one's context: the breach is said either way.
    assert event in str(caught.value) or "this_is_no_module" in str(caught.value)


def test_the_guard_lets_work_be_done(tmp_path):
    with guarded(tmp_path):
        (tmp_path / "own").write_text("x")
        (tmp_path / "own").rename(tmp_path / "renamed")
        assert (tmp_path / "renamed").read_text() == "x"


def test_the_guard_bounds_time(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 0.2)
    with pytest.raises(Hang), guarded(tmp_path):
        time.sleep(60)


def _reserve(size: int) -> None:
    """New address space, of which no byte is used; an allocator may have freed space to reuse."""
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()


def test_the_guard_bounds_memory(tmp_path):
    with guarded(tmp_path):
        _reserve(guard.SPACE // 4)
    with pytest.raises(OSError, match="Cannot allocate memory"), guarded(tmp_path):
        _reserve(16 * guard.SPACE)
    _reserve(16 * guard.SPACE)


def test_a_target_raises_what_is_no_refusal(tmp_path):
    def use(given: object) -> None:
        raise KeyError(given) if given else AmfastError("a sentence")

    target = Target("broken", None, None, use, tmp_path)
    assert not target.attempt(None)
    with pytest.raises(KeyError):
        target.attempt(1)
