"""``amfast.optimize``: the method in one call, for use inside other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from amfast.classes import select_classes
from amfast.classifiers.protocol import Classifier, ModuleClassifier, wrap_module
from amfast.config import CompileMode, RunConfig, make_config
from amfast.errors import UsageError
from amfast.generators.protocol import Generator, device_of
from amfast.metrics.embedding import EmbeddingScore, score_embedding
from amfast.metrics.ranking import FLOOR, rank
from amfast.ops import on_fallback, refuse_slower_paths, slower_paths
from amfast.optimize.compiled import compiled_for
from amfast.optimize.determinism import deterministic_torch
from amfast.optimize.diversity import DiversityTerm, Phi
from amfast.optimize.engine import Progress, Settings, TrialResult, optimize_trials
from amfast.optimize.initializers import METHODS, MethodName, initial_embeddings, parse_init
from amfast.optimize.memory import images_per_pass, plan_passes
from amfast.optimize.objective import TargetLogProb, images_together
from amfast.optimize.precision import initial_loss_scale
from amfast.optimize.profile import PROFILES, ProfileName
from amfast.optimize.slots import Slots
from amfast.optimize.stopping import parse_stop
from amfast.optimize.trials import Trial, plan_trials

#: The stream of ``likest_rows`` is keyed by this and the seed, apart from every trial's own.
_LIKEST, _LIKEST_IMAGES = 0x70B5, 10


@dataclass(frozen=True)
class Scores:
    """Embeddings judged on fresh latents: every trial's, and the classes' own before it."""

    original: dict[int, EmbeddingScore]  # by class id; absent where the generator lacks the class
    trials: dict[Trial, EmbeddingScore]


@dataclass(frozen=True)
class Result:
    """What ``optimize`` found, trial by trial, sorted by class and trial."""

    config: RunConfig
    trials: list[TrialResult]
    scores: Scores = field(repr=False)

    @property
    def embeddings(self) -> Tensor:
        """The optimised embeddings ``[N, E]``, fp32, on the CPU."""
        return torch.stack([t.embedding for t in self.trials])

    @property
    def history(self) -> Tensor:
        """``[N, steps, 3]``: mean target log-probability and probability, and distance, by step.

        The distance is the root mean square one of the step's images, pooled to 8x8.
        """
        return torch.stack([t.history for t in self.trials])

    @property
    def failed(self) -> list[TrialResult]:
        """The trials whose objective or gradient stopped being finite."""
        return [t for t in self.trials if t.failed]

    def best(self, min_target_prob: float = FLOOR) -> dict[int, TrialResult]:
        """The best trial of every class that has one which did not fail.

        That is the most diverse among those whose mean target probability on fresh latents is at
        least ``min_target_prob``, or the most probable where none reaches it.
        """
        sound = {t.trial: t for t in self.trials if not t.failed}
        chosen: dict[int, TrialResult] = {}
        for trial in rank({t: self.scores.trials[t] for t in sound}, min_target_prob):
            chosen.setdefault(trial.class_id, sound[trial])
        return chosen


def optimize(
    generator: Generator,
    classifier: Classifier | nn.Module,
    *,
    classes: str | int | Sequence[int | str] = "all",
    method: MethodName = "am-l",
    init: str = "method",
    profile: ProfileName = "paper",
    noise_layer: bool = False,
    diversity: Phi = "softmax",
    diversity_weight: float = 1.0,
    trials: int | None = None,
    steps: int = 200,
    latents: int | None = None,
    steps_per_latents: int = 20,
    stop: str = "none",
    lr: float | None = None,
    seed: int = 0,
    batch_embeddings: int = 64,
    microbatch: int | None = None,
    deterministic: bool = False,
    compile: CompileMode = "auto",
    strict: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Result:
    """Optimise class embeddings of a frozen generator against a frozen classifier.

    Follows Li, Mai, Alcorn and Nguyen (ACCV 2020), section 2: Adam on the embedding alone,
    maximising the mean log-probability of the target class over ``latents`` random latents that are
    drawn anew every ``steps_per_latents`` steps, with a projection to the range of the pretrained
    embeddings after every step.

    ``classes`` are ids or names of the classifier's labels, or a selection such as ``"0-3,star"``.
    A bare ``nn.Module`` classifier is wrapped for 224-pixel inputs with ImageNet's mean and std, in
    the generator's precision; use ``amfast.wrap_module`` for others. ``init`` is where
    embeddings start, if not at the method's own place: ``"mean"``, ``"own"``, ``"random"`` or
    ``"top-5"``, the five classes whose images look most like it. ``profile`` is ``"paper"`` or
    ``"biggan-am"``, the behaviour of the authors' released code (docs/profiles.md); ``trials`` (5
    or 3), ``latents`` (20 or 10) and ``lr`` default to its own. ``noise_layer`` learns a linear map
    of each trial's latents beside its embedding. ``diversity`` is what am-d-s and am-d-l compare
    images by, and ``diversity_weight`` the paper's lambda (section 3.5). ``batch_embeddings``
    trials are optimised together, and at most ``microbatch`` images are in one pass. ``stop`` ends
    a trial early by its own history: ``"plateau"`` or ``"prob=P"``. ``deterministic`` gives the
    same bytes whatever ``batch_embeddings`` and the number of threads (docs/reproducibility.md);
    torch's settings are its own meanwhile, and as they were afterwards. ``compile`` puts the
    classifier under ``torch.compile`` and, on CUDA, the step into a CUDA graph; ``"auto"`` does so
    on CUDA alone. ``on_note`` hears of what a user should know, such as a smaller pass after memory
    ran out or an operator whose kernel failed. ``strict`` raises ``AmfastError`` where a slower
    path would serve: a reference in a kernel's place, or no ``torch.compile`` where it was meant.

    Works on the generator's device, where the classifier must be too; on a CPU, passes run side by
    side in threads, so both must be callable from several at once, as any ``nn.Module`` is that
    keeps nothing between calls. Raises
    ``UsageError`` for values out of bounds.
    """
    for value, kind, loader in (
        (generator, Generator, "load_generator"),
        (classifier, (Classifier, nn.Module), "load_classifier"),
    ):
        if not isinstance(value, kind):
            raise UsageError(f"{value!r} is not loaded: use amfast.{loader}({value!r})")
    device = device_of(generator)
    if isinstance(classifier, nn.Module):
        dtype = getattr(generator, "dtype", torch.float32)
        classifier = wrap_module(classifier, device=device, dtype=dtype)
    config = make_config(
        generator=generator.spec.name,
        classifier=classifier.spec.name,
        classes=select_classes(classes, classifier.spec.labels),
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
        deterministic=deterministic,
        device=str(device),
        compile=compile,
        strict=strict,
    )
    check_method(generator, classifier, config)
    wanted = plan_trials(config.classes, config.trials, config.seed)
    with on_fallback(on_note, strict=strict):
        found = run_trials(generator, classifier, config, wanted, on_progress, on_note=on_note)
        results = sorted(found, key=lambda result: result.trial)
        return Result(config, results, score_trials(generator, classifier, config, results))


def engine_settings(generator: Generator, classifier: Classifier, config: RunConfig) -> Settings:
    """The engine's numbers for a run on this generator's device."""
    objective, profile = objective_for(classifier, config), PROFILES[config.profile]
    if config.deterministic:  # as on the CPU: what shares a pass may share its rounding
        images = min(config.microbatch or config.latents, config.latents)
    else:
        images = config.microbatch or images_per_pass(generator, objective, config.latents)
    return Settings(
        learning_rate=config.lr,
        latents=config.latents,
        steps_per_latents=config.steps_per_latents,
        images_per_pass=images,
        steps=config.steps,
        slots=config.batch_embeddings,
        stop=parse_stop(config.stop),
        loss_scale=initial_loss_scale(generator, classifier),
        graph="on" if config.strict and config.compile == "auto" else config.compile,
        keep_shape=device_of(generator).type == "cuda" and not config.deterministic,
        weight_decay=profile.weight_decay,
        clamp_in_graph=profile.clamp_in_graph,
        shared_latents=profile.shared_latents,
        noise_layer=config.noise_layer,
        deterministic=config.deterministic,
    )


def _arithmetic(generator: Generator, config: RunConfig) -> AbstractContextManager[object]:
    """torch as the run asks for it."""
    return deterministic_torch(device_of(generator)) if config.deterministic else nullcontext()


def objective_for(classifier: Classifier, config: RunConfig) -> TargetLogProb:
    """What the trials of a run maximise, with the images brought to it as its profile does.

    Scores are not taken with it: they judge every profile's embeddings alike.
    """
    term = DiversityTerm(config.diversity, config.diversity_weight)
    return TargetLogProb(
        classifier,
        PROFILES[config.profile].classifier_input(classifier.spec),
        term if METHODS[config.method].explicit_diversity else None,
    )


def own_rows(generator: Generator, classifier: Classifier) -> dict[int, int]:
    """Class id -> the generator's own row, matched by name, for the classes that it has."""
    return rows_by_name(generator.spec.labels, dict(enumerate(classifier.spec.labels)))


def rows_by_name(labels: Sequence[str], names: Mapping[int, str]) -> dict[int, int]:
    """Class id -> the row of that name among ``labels``, for the names that are there.

    Of two rows of one name, a class has the one of its own number: ImageNet has two cranes.
    """
    rows = {label: row for row, label in enumerate(labels)}
    return {
        i: i if i < len(labels) and labels[i] == name else rows[name]
        for i, name in names.items()
        if name in rows
    }


def run_trials(
    generator: Generator,
    classifier: Classifier,
    config: RunConfig,
    trials: Sequence[Trial],
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    stopped: Slots | None = None,
    on_resample: Callable[[Slots], None] = lambda slots: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Iterator[TrialResult]:
    """Optimise ``trials``, ``config.batch_embeddings`` at a time, and yield each once it is done.

    ``stopped`` are the trials that were under way in an earlier call, as last given to
    ``on_resample``; those of them that are among ``trials`` go on from there.
    """
    if not trials:
        return iter(())
    device = device_of(generator).type
    slower = slower_paths(device)
    if config.strict:
        refuse_slower_paths(slower)
    elif device == "cuda":  # of the CPU, importing amfast.ops has said it
        for said in slower:
            on_note(said)
    settings = engine_settings(generator, classifier, config)
    method = METHODS[config.method]
    start, noise = parse_init(config.init, method), method.noise
    top: Mapping[int, Sequence[int]] = {}
    if start.kind == "top":
        with _arithmetic(generator, config):
            top = likest_rows(generator, classifier, config, start.top)
    table, rows = generator.class_embeddings, own_rows(generator, classifier)
    if config.compile == "on" or (config.compile == "auto" and table.is_cuda):
        together = min(settings.slots, len(trials))
        objective = objective_for(classifier, config)
        paired, size = images_together(objective), objective.input_spec.size
        passes = plan_passes(together, settings.latents, settings.images_per_pass, paired)
        required = config.compile == "on" or config.strict
        classifier = compiled_for(
            classifier, passes, table.device, size=size, required=required, on_note=on_note
        )
    return optimize_trials(
        generator,
        objective_for(classifier, config),
        trials,
        lambda fresh: initial_embeddings(start, noise, table, fresh, own=rows, top=top),
        settings,
        stopped=stopped,
        on_progress=on_progress,
        on_resample=on_resample,
        on_note=on_note,
    )


@torch.no_grad()
def likest_rows(
    generator: Generator, classifier: Classifier, config: RunConfig, count: int
) -> dict[int, list[int]]:
    """Class id -> the ``count`` rows of the generator whose images look most like it, best first.

    By the mean probability of the class over ten images of every row, the same latents for each
    (paper, section 3.2). With the profile biggan-am the best comes last.
    """
    objective, table = objective_for(classifier, config), generator.class_embeddings
    stream = torch.Generator().manual_seed(config.seed ^ _LIKEST)
    latents = torch.randn(1, _LIKEST_IMAGES, generator.spec.latent_dim, generator=stream).to(table)
    classes = torch.tensor(config.classes, device=table.device)
    found = []
    for row in table:
        probs = objective.logits(generator(row[None], latents)).float().softmax(dim=1)
        found.append(probs.mean(dim=0)[classes])
    best = torch.stack(found).argsort(dim=0, descending=True, stable=True)[:count]  # [K, classes]
    if PROFILES[config.profile].top_ascending:
        best = best.flip(0)
    return dict(zip(config.classes, best.t().tolist(), strict=True))


def score_trials(
    generator: Generator, classifier: Classifier, config: RunConfig, results: Iterable[TrialResult]
) -> Scores:
    """Judge the trials that did not fail, and their classes' own embeddings, on fresh latents.

    On five times as many as a step has, at most 100: a run of few latents, to try what a machine
    can do, then does not spend its time on scores.
    """
    images = min(100, 5 * config.latents)
    objective = TargetLogProb(classifier)
    rows = own_rows(generator, classifier)

    def score(embedding: Tensor, class_id: int) -> EmbeddingScore:
        return score_embedding(
            generator, objective, embedding, class_id, seed=config.seed, images=images
        )

    table = generator.class_embeddings
    with _arithmetic(generator, config):
        return Scores(
            original={i: score(table[rows[i]], i) for i in config.classes if i in rows},
            trials={r.trial: score(r.embedding, r.trial.class_id) for r in results if not r.failed},
        )


def check_method(generator: Generator, classifier: Classifier, config: RunConfig) -> None:
    """Raise ``UsageError`` before any work if the method cannot start for one of the classes.

    Also if it compares feature maps and the classifier names none. ``AmfastError`` if ``strict``
    cannot be had on this machine.
    """
    if config.strict:
        refuse_slower_paths(slower_paths(device_of(generator).type))
    maps = isinstance(classifier, ModuleClassifier) and classifier.spec.feature_layers
    wanted = METHODS[config.method].explicit_diversity and config.diversity == "conv5"
    if wanted and not maps:
        raise UsageError(
            "diversity conv5 compares the classifier's last feature maps, and "
            f"{classifier.spec.name} names none: use softmax or pixel, or "
            "amfast.wrap_module(module, feature_layers=[...])"
        )
    start = parse_init(config.init, METHODS[config.method])
    if start.top > len(generator.class_embeddings):
        raise UsageError(
            f"init {config.init} picks among the classes of generator {generator.spec.name}, which "
            f"has {len(generator.class_embeddings)}"
        )
    if start.kind == "own":
        rows = own_rows(generator, classifier)
        lacking = [classifier.spec.labels[i] for i in config.classes if i not in rows]
        if lacking:
            raise UsageError(
                f"{config.method} starts from the class's own embedding, and generator "
                f"{generator.spec.name} has no class {', '.join(lacking)}: "
                "use am-l, which starts from the mean of all classes, or another --init"
            )
