"""``make gpu``: build, test, time and record on a machine with a CUDA device.

It runs with the Python that starts it and installs nothing. The kernels are built in place, the
tests marked gpu have to pass, then the trials and ops are timed on CUDA; the results go to
bench/results and into the table of docs/performance.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- gpu table: written by make gpu -->", "<!-- end of gpu table -->"
#: What the build, the tests and the benchmarks import -> the name to install it under.
MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "setuptools": "setuptools",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "typer": "typer",
    "rich": "rich",
    "PIL": "pillow",
    "pytest": "pytest",
    "pytest_benchmark": "pytest-benchmark",
    "hypothesis": "hypothesis",
}
OP_RIVALS = ("triton", "reference", "compiled-reference")
TRIAL_HEAD = [
    "trial",
    "contestant",
    "s per trial",
    "times its floor",
    "images/s",
    "TFLOP/s needed",
    "peak GB",
    "MB kept per image",
    "theirs / ours",
]
OP_HEAD = ["op", "kernel, GB/s", "of a copy's", *(f"{other} / kernel" for other in OP_RIVALS)]


def missing(find_module: Callable[[str], object | None] = find_spec) -> str | None:
    """A sentence on the packages that are not installed here, None where all are."""
    packages = [name for module, name in MODULES.items() if find_module(module) is None]
    if not packages:
        return None
    return (
        f"{sys.executable} lacks {', '.join(packages)}. Install what is missing, for example with "
        f"'pip install {' '.join(packages)}', or name another Python: make gpu PYTHON=..."
    )


def without_cuda() -> str | None:
    """A sentence on why there is no CUDA device, None where there is one."""
    import torch

    if torch.cuda.is_available():
        return None
    built = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "is CPU-only"
    return (
        f"torch sees no CUDA device here (torch {torch.__version__} {built}), so there is nothing "
        "to test or time. 'make bench' times the CPU."
    )


def run(*arguments: str, **environment: str) -> None:
    """Run this Python with ``arguments`` in the checkout; end with its code where it fails."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)


def gpu_page(page: str, table: str) -> str:
    """``page`` with ``table`` between its two marks. ``ValueError`` where it lacks them."""
    begin, end = page.find(BEGIN), page.find(END)
    if begin < 0 or end < begin:
        raise ValueError(f"the page has no '{BEGIN}' followed by '{END}' to put the table between")
    return f"{page[: begin + len(BEGIN)]}\n\n{table}\n\n{page[end:]}"


def gpu_table(results: dict[str, Any]) -> str:
    """Trials and ops of one device as two Markdown tables."""
    trials, ops = [TRIAL_HEAD], [OP_HEAD]
    for group, contestants in sorted(results["results"].items()):
        if group.startswith("trial "):
            trials += _trial_rows(group.removeprefix("trial "), contestants)
        else:
            ops.append(_op_row(group, contestants))
    machine, peaks = results["machine"], _peaks(results)
    head = f"Measured on {machine['gpu']}, torch {machine['torch']}{peaks}."
    return "\n\n".join([head, *(markdown(table) for table in (trials, ops) if len(table) > 1)])


def _peaks(results: dict[str, Any]) -> str:
    """The measured matmul peaks that the trials were held against, as a clause."""
    found = {
        f"{of['matmul_peak_tflops']:.0f} TFLOP/s"
        for contestants in results["results"].values()
        for of in contestants.values()
        if "matmul_peak_tflops" in of
    }
    return f"; measured matmul peak {' and '.join(sorted(found))}" if found else ""


def _trial_rows(name: str, contestants: dict[str, Any]) -> list[list[str]]:
    ours = contestants["engine"]
    return [
        [
            f"{name}, {found['dtype']}",
            contestant,
            f"{found['seconds_per_trial']:.2f}",
            f"{1 / found['of_matmul_peak']:.2f}",
            f"{found['images_per_s']:.0f}",
            f"{found['tflops']:.0f}",
            f"{found['peak_bytes'] / 1e9:.1f}",
            f"{found['kept_bytes_per_image'] / 1e6:.1f}" if "kept_bytes_per_image" in found else "",
            f"{found['seconds'] / ours['seconds']:.1f}" if found is not ours else "",
        ]
        for contestant, found in contestants.items()
    ]


def _op_row(name: str, contestants: dict[str, Any]) -> list[str]:
    if "kernel" not in contestants:
        return [name, "no kernel", *[""] * (len(OP_HEAD) - 2)]
    kernel = contestants["kernel"]
    ratios = [
        f"{contestants[rival]['seconds'] / kernel['seconds']:.2f}" if rival in contestants else ""
        for rival in OP_RIVALS
    ]
    return [name, f"{kernel['GB/s']:.0f}", f"{100 * kernel['of_copy']:.0f} %", *ratios]


def main() -> None:
    reason = missing() or without_cuda()
    if reason:
        sys.exit(f"make gpu: {reason}")
    run("setup.py", "-q", "build_ext", "--inplace", AMFAST_REQUIRE_EXT="1")
    run("-m", "pytest", "-m", "gpu")
    # Triton's kernels, in recorded steps too.
    run("-m", "pytest", "-m", "gpu", "tests/ops", "tests/optimize", AMFAST_NO_CUDA_EXT="1")
    report = ROOT / "build" / "gpu.json"
    report.parent.mkdir(exist_ok=True)
    options = ["-o", "python_files=bench_*.py", "-k", "cuda", f"--benchmark-json={report}"]
    run("-m", "pytest", "bench", *options)

    from bench.report import RESULTS, condense, save

    results = condense(json.loads(report.read_text()))
    print(f"Stored in {save(results, RESULTS)}")
    PAGE.write_text(gpu_page(PAGE.read_text(), gpu_table(results)))
    print(f"Wrote the table of {PAGE}")


if __name__ == "__main__":
    main()
