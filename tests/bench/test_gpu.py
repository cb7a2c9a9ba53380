"""What 'make gpu' says where it cannot run, and what it writes where it can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import gpu

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_cuda_device_it_says_so_and_fails() -> None:
    done = subprocess.run(
        ["make", "gpu", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "torch sees no CUDA device here" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_names_every_package_to_install() -> None:
    lacking = {"pydantic", "PIL"}
    sentence = gpu.missing(lambda module: None if module in lacking else object())
    assert sentence is not None
    assert "lacks pydantic, pillow" in sentence
    assert "pip install pydantic pillow" in sentence
    assert gpu.missing(lambda module: object()) is None


def trial(seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "seconds_per_trial": 200 * seconds,
        "of_matmul_peak": 0.5,
        "matmul_peak_tflops": 790.4,
        "images_per_s": 20 / seconds,
        "tflops": 395.0,
        "peak_bytes": 21_500_000_000,
        "dtype": "bf16",
        **more,
    }


RESULTS = {
    "machine": {"gpu": "NVIDIA H200", "cpu_model": "Acme", "threads": 16, "torch": "2.11.0"},
    "results": {
        "trial biggan-256-cuda": {
            "engine": trial(0.01, kept_bytes_per_image=58_500_000),
            "plain": trial(0.25, dtype="fp32"),
        },
        "cond_norm_relu biggan-256-256 cuda": {
            "kernel": {"seconds": 1e-3, "GB/s": 3456.7, "of_copy": 0.823},
            "triton": {"seconds": 1.1e-3, "GB/s": 3142.5, "of_copy": 0.748},
            "reference": {"seconds": 4e-3, "GB/s": 800.0},
            "compiled-reference": {"seconds": 1.5e-3, "GB/s": 2300.0},
        },
        "subpixel_norm_relu biggan-256-256 cuda": {"reference": {"seconds": 4e-3, "GB/s": 800.0}},
    },
}


def test_the_table_says_who_was_how_fast() -> None:
    lines = gpu.gpu_table(RESULTS).splitlines()
    assert lines[0] == "Measured on NVIDIA H200, torch 2.11.0; measured matmul peak 790 TFLOP/s."
    engine, plain = (line for line in lines if "biggan-256-cuda" in line)
    assert engine == (
        "| biggan-256-cuda, bf16 | engine | 2.00 | 2.00 | 2000 | 395 | 21.5 | 58.5 |  |"
    )
    assert plain.startswith("| biggan-256-cuda, fp32 | plain | 50.00 |")
    assert plain.endswith("|  | 25.0 |")
    assert "| cond_norm_relu biggan-256-256 cuda | 3457 | 82 % | 1.10 | 4.00 | 1.50 |" in lines
    assert "| subpixel_norm_relu biggan-256-256 cuda | no kernel |  |  |  |  |" in lines


def test_the_table_takes_the_place_of_the_old_one_alone() -> None:
    page = f"before\n\n{gpu.BEGIN}\n\nold\n\n{gpu.END}\n\nafter\n"
    once = gpu.gpu_page(page, "| new |")
    assert once == f"before\n\n{gpu.BEGIN}\n\n| new |\n\n{gpu.END}\n\nafter\n"
    assert gpu.gpu_page(once, "| new |") == once


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="to put the table between"):
        gpu.gpu_page(f"{gpu.END}{gpu.BEGIN}", "| new |")


def test_the_page_has_the_marks() -> None:
    page = gpu.PAGE.read_text()
    assert gpu.gpu_page(page, "| new |") != page
