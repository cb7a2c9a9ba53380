"""Every knob of a run, typed and validated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from amfast.errors import UsageError
from amfast.optimize.diversity import Phi
from amfast.optimize.initializers import METHODS, MethodName, parse_init
from amfast.optimize.profile import PROFILES, ProfileName
from amfast.optimize.stopping import parse_stop

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]
#: How a truncation selects BigGAN-deep's statistics (``reference_deep.statistics_weights``).
TruncationStats = Literal["upstream", "exact"]
#: BigGAN's eps values (``architectures.EPS_PROFILES``).
EpsProfile = Literal["auto", "biggan-am", "training"]
Truncation = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
CompileMode = Literal["auto", "on", "off"]
#: The bound is far above any use; beyond it lie overflows and endless loops.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
_Config = TypeVar("_Config", bound=BaseModel)
_Named = TypeVar("_Named")


class RunConfig(BaseModel):
    """What decides a run's result. Two runs with equal configurations are the same run.

    ``classes`` are ids of the classifier's labels. ``init`` is where embeddings start: the
    ``"method"``'s own place, or ``"mean"``, ``"own"``, ``"random"``, ``"top-K"``
    (``amfast.optimize.initializers.Start``). ``profile`` names a reading of the method
    (``amfast.optimize.profile``): ``trials``, ``latents`` and ``lr`` default to its own, ``lr`` in
    the paper's to 0.01 for AM-S and 0.1 for AM-L (section 2). ``noise_layer`` learns a linear map
    of the latents beside the embedding, which alone is kept. ``diversity`` and
    ``diversity_weight``, the paper's lambda, are the explicit term's of am-d-s and am-d-l
    (``amfast.optimize.diversity``), which take an even number of latents. ``stop`` names a rule of
    ``amfast.optimize.stopping``. ``microbatch`` bounds the images in one pass; None lets the device
    decide. ``deterministic`` gives the same bytes whatever ``batch_embeddings`` is and however many
    threads there are (docs/reproducibility.md), and sets ``compile`` to ``"off"``. ``compile``: the
    classifier under ``torch.compile`` and, on CUDA, the step as a CUDA graph; ``"auto"`` does so on
    CUDA alone. ``weights`` is the generator's file where it is not its own, or ``"random"``.
    ``classifier_weights`` likewise. ``truncation``, ``truncation_stats`` and ``eps`` are those of
    ``load_generator``. ``strict`` fails where a slower path would serve, and decides nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str = "embedded"
    weights: str | None = None
    truncation: Truncation = 1.0
    truncation_stats: TruncationStats = "upstream"
    eps: EpsProfile = "auto"
    classifier: str = "embedded"
    classifier_weights: str | None = None
    classes: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    method: MethodName = "am-l"
    init: str = "method"
    profile: ProfileName = "paper"
    noise_layer: bool = False
    diversity: Phi = "softmax"
    diversity_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    trials: Annotated[int, Field(ge=1, le=10_000)]
    steps: Count = 200
    latents: Count
    steps_per_latents: Count = 20
    stop: str = "none"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    batch_embeddings: Count = 64
    microbatch: Count | None = None
    device: str = "auto"
    dtype: DtypeName = "auto"
    deterministic: bool = False
    compile: CompileMode = Field("auto", validate_default=True)
    strict: bool = False

    @field_validator("init")
    @classmethod
    def _known_start(cls, text: str) -> str:
        parse_init(text, METHODS["am-l"])
        return text

    @field_validator("stop")
    @classmethod
    def _known_rule(cls, text: str) -> str:
        parse_stop(text)
        return text

    @field_validator("compile")
    @classmethod
    def _uncompiled(cls, mode: CompileMode, others: ValidationInfo) -> CompileMode:
        if not others.data.get("deterministic"):
            return mode
        if mode == "on":
            raise ValueError(
                "on, and compilers choose kernels by what is fast and by shapes: deterministic "
                "takes off, or auto, which is off then"
            )
        return "off"

    @model_validator(mode="after")
    def _pairs(self) -> RunConfig:
        if METHODS[self.method].explicit_diversity and self.latents % 2:
            raise ValueError(
                f"{self.method} compares latents in pairs: {self.latents} of them cannot be paired"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _profile_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # A name that is in neither table fails by itself.
        profile = _named(PROFILES, values.get("profile"), "paper")
        method = _named(METHODS, values.get("method"), "am-l")
        defaults = {
            "trials": profile.trials,
            "latents": profile.latents,
            "lr": profile.learning_rate or method.learning_rate,
        }
        given = {name: value for name, value in values.items() if value is not None}
        missing = {name: value for name, value in defaults.items() if name not in given}
        return {**values, **missing}


class SampleConfig(BaseModel):
    """The knobs of ``amfast sample``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=1, le=1000)] = 8
    truncation: Truncation = 1.0
    truncation_stats: TruncationStats = "upstream"
    eps: EpsProfile = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    dtype: DtypeName = "auto"


def _named(table: Mapping[Any, _Named], name: object, default: str) -> _Named:
    return table[name if isinstance(name, str) and name in table else default]


def make_config(**values: Any) -> RunConfig:
    """A ``RunConfig``, or ``UsageError`` with one sentence per value that is out of bounds."""
    return _validated(RunConfig, values)


def make_sample_config(**values: Any) -> SampleConfig:
    """A ``SampleConfig``, or ``UsageError`` likewise."""
    return _validated(SampleConfig, values)


def _validated(model: type[_Config], values: dict[str, Any]) -> _Config:
    try:
        return model(**values)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]).replace("_", "-")
            if problem["type"] == "value_error":  # one of our own sentences
                problems.append(f"{name}: {problem['ctx']['error']}")
            else:
                problems.append(f"{name}: {problem['msg'].lower()} (given: {problem['input']!r})")
        raise UsageError("; ".join(problems)) from None
