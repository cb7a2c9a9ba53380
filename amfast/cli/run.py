"""``amfast run``: optimise class embeddings and keep the result in a run directory."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from amfast.cli import options
from amfast.cli.console import complain, print_json
from amfast.cli.executors import choose_executor
from amfast.cli.interrupt import INTERRUPTED
from amfast.cli.progress import RunDisplay, show_plan, show_summary
from amfast.cli.weights import fetch_all
from amfast.device import keep_freed_memory
from amfast.device_errors import is_device_error
from amfast.errors import AmfastError
from amfast.report import Report, report_if_possible
from amfast.runs.directory import STATE_FILES
from amfast.runs.plan import plan_run
from amfast.runs.session import Job, execute, in_this_process, prepare
from amfast.text import first_line
from amfast.weights.catalogue import CATALOGUE

SOME_FAILED = 3


def register(app: typer.Typer) -> None:
    app.command()(run)


def run(
    classes: Annotated[
        str,
        typer.Option(
            help="all, or ids, names, ranges (0-3), presets (imagenet-50) and @files, with commas."
        ),
    ] = "all",
    batch_embeddings: Annotated[int, typer.Option(help="Embeddings optimised together.")] = 64,
    microbatch: Annotated[
        int | None, typer.Option(help="Most images in one pass; the device decides without it.")
    ] = None,
    generator: options.Generator = "embedded",
    weights: options.Weights = None,
    truncation: options.Truncation = 1.0,
    truncation_stats: options.TruncationStats = "upstream",
    eps: options.Eps = "auto",
    classifier: options.Classifier = "embedded",
    classifier_weights: options.ClassifierWeights = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download published weights that are not here yet.")
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            help="am-s (own embedding) or am-l (mean); am-d-s, am-d-l: with a diversity term."
        ),
    ] = "am-l",
    init: Annotated[
        str,
        typer.Option(help="Start: method (its own), mean, own, random or top-K likest classes."),
    ] = "method",
    diversity: Annotated[
        str, typer.Option(help="What am-d compares images by: pixel, conv5 or softmax.")
    ] = "softmax",
    diversity_weight: Annotated[
        float, typer.Option("--lambda", help="The weight of am-d's diversity term.")
    ] = 1.0,
    profile: Annotated[
        str, typer.Option(help="paper, or biggan-am: as the authors' released code behaves.")
    ] = "paper",
    noise_layer: Annotated[
        bool, typer.Option("--noise-layer", help="Learn a linear map of the latents as well.")
    ] = False,
    trials: Annotated[
        int | None, typer.Option(help="Trials for each class: 5, or 3 with biggan-am.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Adam steps of a trial.")] = 200,
    latents: Annotated[
        int | None, typer.Option(help="Latents in a step: 20, or 10 with biggan-am.")
    ] = None,
    steps_per_latents: Annotated[int, typer.Option(help="Steps before new latents.")] = 20,
    stop: Annotated[
        str, typer.Option(help="End a trial early: none, plateau, or prob=P with P in (0, 1].")
    ] = "none",
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; without it 0.01 for am-s, 0.1 for am-l.")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="The same bytes for every batch and thread count."),
    ] = False,
    compile: Annotated[
        str,
        typer.Option(help="auto, on or off: torch.compile and CUDA graphs; auto means on CUDA."),
    ] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where a slower path would serve.")
    ] = False,
    executor: Annotated[
        str,
        typer.Option(help="inline (here), local (a process per device) or ray (a cluster)."),
    ] = "inline",
    devices: Annotated[
        str | None,
        typer.Option(help="local: where, such as cuda:0,cuda:1; all CUDA devices without it."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="ray: HOST:PORT or auto; a Ray of this machine alone without it."),
    ] = None,
    gpus_per_task: Annotated[
        float | None, typer.Option(help="ray: GPUs of a task; one on CUDA without it.")
    ] = None,
    cpus_per_task: Annotated[float, typer.Option(help="ray: CPU cores of a task.")] = 1,
    trials_per_task: Annotated[
        int | None,
        typer.Option(help="local, ray: trials given out at a time; shared evenly without it."),
    ] = None,
    outdir: Annotated[
        Path, typer.Option(help="Folder of runs, or the run directory to resume.", metavar="DIR")
    ] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of these options.")
    ] = False,
    allow_drift: Annotated[
        bool,
        typer.Option(
            "--allow-drift", help="Resume a run directory on other versions or devices, recorded."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the run would take.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="End with the report of the run.")
    ] = True,
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Optimise class embeddings; finished trials are kept, whatever happens."""

    spread = choose_executor(
        executor, device, devices, address, gpus_per_task, cpus_per_task, trials_per_task
    )
    keep_freed_memory()
    if fetch:
        wanted = (generator, weights), (classifier, classifier_weights)
        published = [name for name, given in wanted if given is None and name in CATALOGUE]
        fetch_all(published, quiet=quiet or as_json)
    job = prepare(
        classes=classes,
        generator=generator,
        weights=None if weights is None else str(weights),
        truncation=truncation,
        truncation_stats=truncation_stats,
        eps=eps,
        classifier=classifier,
        classifier_weights=None if classifier_weights is None else str(classifier_weights),
        method=method,
        init=init,
        profile=profile,
        noise_layer=noise_layer,
        diversity=diversity,
        diversity_weight=diversity_weight,
        trials=trials,
        steps=steps,
        latents=latents,
        steps_per_latents=steps_per_latents,
        stop=stop,
        lr=lr,
        seed=seed,
        batch_embeddings=batch_embeddings,
        microbatch=microbatch,
        device=device,
        dtype=dtype,
        deterministic=deterministic,
        compile=compile,
        strict=strict,
    )
    if dry_run:
        return _show_plan(job, as_json=as_json)

    written: Report | None = None
    with RunDisplay(job.config, quiet=quiet, alone=spread is in_this_process) as display:
        try:
            outcome = execute(
                job,
                outdir,
                resume=resume,
                allow_drift=allow_drift,
                listener=display,
                executor=spread,
            )
            if report:
                display.reporting()
                path = outcome.directory.path
                written = report_if_possible(path, job.generator, on_failure=complain)
        except KeyboardInterrupt:
            display.close()
            complain(_how_to_resume("interrupted", display.run_dir))
            raise typer.Exit(INTERRUPTED) from None
        except RuntimeError as error:
            if not is_device_error(error):
                raise
            display.close()
            happened = f"the device failed and is lost to this process ({first_line(error)})"
            hint = "with --executor local as well, a fresh process takes over by itself"
            complain(f"{_how_to_resume(happened, display.run_dir)}; {hint}")
            raise typer.Exit(AmfastError.exit_code) from None
    directory = outcome.directory
    failed = outcome.summary["failed"]
    if as_json:
        paths = {
            "run_dir": directory.path,
            "embeddings": directory.embeddings_path,
            "summary": directory.summary_path,
            "picture": directory.picture_path,
        }
        print_json(
            {
                **{key: str(path) for key, path in paths.items()},
                "report": None if written is None else str(written.path),
                **outcome.summary,
            }
        )
    elif not quiet:
        show_summary(outcome, None if written is None else written.path)
    if failed:
        names = ", ".join(
            f"{job.label(t.trial.class_id)} {t.trial.index} at step {t.failed_at}"
            for t in outcome.result.failed
        )
        complain(f"{failed} of {outcome.summary['trials']} trials failed (not finite): {names}")
        raise typer.Exit(SOME_FAILED)


def _show_plan(job: Job, *, as_json: bool) -> None:

    plan = plan_run(job)
    if as_json:
        print_json({**plan.to_json(), "device": job.config.device, "dtype": job.config.dtype})
    else:
        show_plan(plan, job.config)


def _how_to_resume(happened: str, run_dir: Path | None) -> str:
    if run_dir is None:
        return f"{happened} before the run began; nothing was written"
    # Counted on the disk: the interrupt may have come between a trial's writing and its report.
    finished = len(list(run_dir.glob("trials/*.safetensors")))
    command = [argument for argument in sys.argv[1:] if argument != "--resume"]
    again = shlex.join([*_called_as(), *command, "--resume"])
    kept = f"{finished} finished trials"
    if any(run_dir.glob(STATE_FILES)):
        kept += " and those under way, as of their last resample,"
    return f"{happened}; {kept} are kept in {run_dir}; go on with: {again}"


def _called_as() -> list[str]:
    """This program in words that work where it was called: it may not be on the path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "amfast"]
    return ["amfast" if shutil.which("amfast") == str(called) else str(called)]
