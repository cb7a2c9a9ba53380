"""What fails under a run: a kernel that does not start, a device that is lost."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from amfast.generators.frozen import FrozenBigGAN
from amfast.ops import _fallback, _library
from amfast.ops.target_log_prob import _forward_ref
from tests.command import SMALL, assert_refused, contents

SAID = "Triton's kernel of target_log_prob failed, which leaves its slower reference: "


@pytest.fixture
def failing_kernel():
    """A Triton kernel in the place of the CPU's, which asks for more than there is."""
    errors = pytest.importorskip("triton.runtime.errors")

    def launch(*_):
        raise errors.OutOfResources(300_000, 232_448, "shared memory")

    _fallback.FAILED.clear()
    instead = torch.library.Library(_library.NAMESPACE, "IMPL")
    kernel = _fallback.with_fallback("target_log_prob", launch, _forward_ref)
    instead.impl("target_log_prob", kernel, "CPU")
    yield
    instead._destroy()
    _fallback.FAILED.clear()


def test_a_kernel_that_fails(failing_kernel, finished, tmp_path, invoke):
    done = invoke(*SMALL)
    assert done.returncode == 0
    assert done.stderr.count(SAID) == 1
    (run_dir,) = (tmp_path / "runs").iterdir()
    (note,) = json.loads((run_dir / "run.json").read_text())["notes"]
    assert note.startswith(SAID)
    found, expected = (
        load_file(path / "embeddings.safetensors")["class_embeddings"]
        for path in (run_dir, finished.run_dir)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_strict_takes_no_slower_path(failing_kernel, finished, tmp_path, invoke):
    done = invoke(*SMALL, "--strict", "--quiet")
    assert_refused(done, 1, SAID, "--strict takes no slower path")
    (run_dir,) = (tmp_path / "runs").iterdir()
    again = invoke(*SMALL, "--resume", "--quiet")  # the same run, strict or not
    assert (again.returncode, again.stderr) == (0, "")
    assert set(contents(run_dir)) == set(contents(finished.run_dir))


def test_strict_asks_for_the_kernels(monkeypatch, tmp_path, invoke):
    missing = _library.load_compiled(tmp_path / "_C_cpu.so", without=None)
    monkeypatch.setitem(_library.LIBRARIES, "cpu", missing)
    assert_refused(invoke(*SMALL, "--strict"), 1, "_C_cpu.so is not there.*--strict")
    assert not list(tmp_path.iterdir())
    doctor = invoke("doctor")
    assert "slower: the references serve: _C_cpu.so is not there" in doctor.stdout


def test_a_device_that_is_lost(monkeypatch, tmp_path, finished, invoke):
    """Nothing can be tried again in this process, and what is finished is kept for the next."""
    whole, left = FrozenBigGAN.pre_tanh, iter(range(9))  # a trial has six steps

    def lost(self, embeddings, latents):
        if next(left, None) is None:
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"
            )
        return whole(self, embeddings, latents)

    with monkeypatch.context() as patch:
        patch.setattr(FrozenBigGAN, "pre_tanh", lost)
        done = invoke(*SMALL, "--quiet")
    assert_refused(
        done,
        1,
        r"the device failed and is lost to this process \(CUDA error: an illegal memory access was",
        "; 1 finished trials are kept in .*; go on with: .* --resume; with --executor local",
    )
    assert invoke(*SMALL, "--resume", "--quiet").returncode == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert contents(run_dir) == contents(finished.run_dir)
