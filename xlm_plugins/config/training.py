"""Options of training runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from xlm_plugins.core.options import option

_WHAT, _DATA, _BATCHES, _RUN = "What is trained", "Data", "Batches", "Run"
_EVALUATION, _PROCESSES = "Evaluation and checkpoints", "Processes and precision"

DEFAULT_STEPS = 2000
DEFAULT_WARMUP = 200
WARMUP_SHARE = 0.1
"""The default warm-up is at most this share of the run."""


@dataclass(frozen=True)
class OptimizerOptions:
    """Adam with decoupled weight decay, and its learning rate (docs/semantics.md, 6)."""

    lr: float = option(1e-3, "peak learning rate", above=0.0)
    schedule: str = option(
        "linear",
        "learning rate schedule; linear decays to zero over the run",
        choices=("linear", "inverse_sqrt", "cosine", "constant"),
    )
    warmup: int | None = option(
        None, "steps of linear warm-up; 200 if unset, but at most a tenth of the run", minimum=0
    )
    beta1: float = option(
        0.9, "decay of Adam's first moment", minimum=0.0, maximum=0.9999, advanced=True
    )
    beta2: float = option(
        0.98, "decay of Adam's second moment", minimum=0.0, maximum=0.9999, advanced=True
    )
    eps: float = option(1e-8, "added to Adam's denominator", above=0.0, advanced=True)
    weight_decay: float = option(0.0, "decoupled weight decay", minimum=0.0)
    clip: float = option(1.0, "maximum gradient norm; 0: no clipping", minimum=0.0)
    cosine_period: int = option(
        0, "steps of the first cosine period; 0: one period over the run", minimum=0, advanced=True
    )
    cosine_multiplier: float = option(
        1.0, "length factor from one cosine period to the next", above=0.0, advanced=True
    )
    cosine_shrink: float = option(
        1.0, "peak factor from one cosine period to the next", above=0.0, advanced=True
    )

    def for_run(self, options: RunOptions) -> OptimizerOptions:
        """These options with the warm-up that a run has if the user names none.

        It stays unset where the clock alone ends the run: then it is a share of the time.
        """
        if self.warmup is not None or options.steps is None:
            return self
        return replace(self, warmup=min(DEFAULT_WARMUP, options.steps // 10))


@dataclass(frozen=True)
class RunOptions:
    """Options of any run: how long it trains, what it writes, and how it is distributed.

    ``steps`` is None only if ``minutes`` alone end the run.
    """

    out: str | None = option(None, "run folder; a new one in runs/ if unset", group=_RUN)
    resume: str | None = option(
        None, "run to resume; auto: the run in --out, if there is one", group=_RUN
    )
    train_only: tuple[str, ...] = option(
        (), "train only parameters whose names match a pattern", group=_WHAT, advanced=True
    )
    seed: int = option(1, "random seed", minimum=0, group=_RUN)
    steps: int | None = option(
        None,
        "steps to train for; 2000 if neither these nor --minutes are set",
        minimum=1,
        group=_RUN,
    )
    minutes: float | None = option(
        None,
        "minutes to train for, or less if --steps are set and reached first",
        above=0.0,
        group=_RUN,
    )
    accumulation: int = option(
        1, "gradient accumulation: micro-batches per rank and step", minimum=1, group=_BATCHES
    )
    evaluate_every: int = option(
        500, "steps between evaluations; 0: only at the end", minimum=0, group=_EVALUATION
    )
    save_every: int = option(
        500, "steps between checkpoints; 0: only at the end", minimum=0, group=_EVALUATION
    )
    keep: int = option(
        2, "number of most recent checkpoints to keep", minimum=1, group=_EVALUATION, advanced=True
    )
    validation_metrics: tuple[str, ...] = option(
        (),
        "keep the best model by each metric; a leading _ means lower is better",
        comma=True,
        group=_EVALUATION,
    )
    stopping_criterion: str | None = option(
        None, "METRIC,N: stop after N evaluations without improvement", group=_RUN
    )
    log_every: int = option(
        10, "steps between lines of metrics.jsonl", minimum=1, group=_EVALUATION, advanced=True
    )
    engine: str = option(
        "auto",
        "auto: deepspeed for several processes",
        choices=("auto", "torch", "deepspeed"),
        group=_PROCESSES,
        advanced=True,
    )
    zero_stage: int = option(
        1, "ZeRO stage: what is sharded over ranks", minimum=0, maximum=3, group=_PROCESSES
    )
    deepspeed_config: str | None = option(
        None, "JSON file to merge into DeepSpeed's configuration", group=_PROCESSES, advanced=True
    )
    precision: str = option(
        "auto",
        "auto: bf16 on a GPU that supports it",
        choices=("auto", "fp32", "bf16", "fp16"),
        group=_PROCESSES,
    )
    workers: int = option(
        0,
        "data loader processes per rank; 0: load in the trainer",
        minimum=0,
        group=_PROCESSES,
        advanced=True,
    )
    hang_minutes: float = option(
        10.0,
        "abort with status 75 after this long without progress",
        above=0.0,
        group=_PROCESSES,
        advanced=True,
    )
    threads: int | None = option(
        None, "CPU threads; all of the machine's if unset", minimum=1, group=_PROCESSES
    )

    def __post_init__(self) -> None:
        # Whatever becomes of these options, config.toml records the number that holds.
        if self.steps is None and self.minutes is None:
            object.__setattr__(self, "steps", DEFAULT_STEPS)

    @property
    def most_steps(self) -> int:
        """After how many steps the run ends at the latest."""
        return sys.maxsize if self.steps is None else self.steps


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Pretraining and translation: what is trained, and on which data."""

    objective: tuple[str, ...] = option(
        (), "NAME[:STEPS][@WEIGHT], repeatable: tlm:en-fr", group=_WHAT
    )
    layer: tuple[str, ...] = option(
        (), "NAME[:POSITIONS], repeatable: pkm:4,7+; '' for none", group=_WHAT
    )
    data: str | None = option(
        None, "prepared data set, a folder or URL; the embedded corpus if unset", group=_DATA
    )
    data_cache: str | None = option(
        None,
        "cache for shards of a URL; $WDS_CACHE or the user's cache folder if unset",
        group=_DATA,
        advanced=True,
    )
    data_cache_gb: float | None = option(
        None,
        "size limit of that cache; $WDS_CACHE_SIZE (bytes) or 50 GB if unset",
        above=0.0,
        group=_DATA,
        advanced=True,
    )
    skip_bad_shards: bool = option(
        False,
        "skip training text that cannot be read, and report how much",
        group=_DATA,
        advanced=True,
    )
    init: tuple[str, ...] = option(
        (),
        "initial weights: RUN, encoder=RUN or decoder=RUN, repeatable; the shape of the model, its "
        "layers and their options are inherited unless set",
        group=_WHAT,
    )
    init_embeddings: str | None = option(
        None,
        "word vectors to initialise the token embeddings with: fastText .bin or .vec",
        group=_WHAT,
    )
    batch_tokens: int = option(
        4096, "tokens per global batch, on average", minimum=8, group=_BATCHES
    )
    lanes: int = option(
        8,
        "shares that a global batch is planned in; ranks x accumulation divides it",
        minimum=1,
        group=_BATCHES,
        advanced=True,
    )
    max_length: int = option(
        100, "drop sentences longer than this, in tokens", minimum=1, group=_DATA
    )
    window: int = option(
        256, "tokens per window of running text", minimum=2, group=_DATA, advanced=True
    )
    group_by_length: bool = option(
        False,
        "batch sentences of similar length, in random order: makes bt faster",
        group=_BATCHES,
        advanced=True,
    )
    sampling_alpha: float = option(
        0.7,
        "sample languages by size^alpha; 1 by size, 0 uniformly",
        minimum=0.0,
        maximum=1.0,
        group=_DATA,
    )
    translate_sentences: int = option(
        200,
        "held-out sentences per direction to translate in each evaluation",
        minimum=0,
        group=_EVALUATION,
        advanced=True,
    )


@dataclass(frozen=True)
class FinetuneOptions(RunOptions):
    """Fine-tuning on a downstream task."""

    from_: str | None = option(None, "RUN whose encoder is fine-tuned", group=_WHAT)
    epochs: float = option(3.0, "passes over the training rows", above=0.0, group=_RUN)
    steps: int = option(0, "steps to train for; 0: determined by --epochs", minimum=0, group=_RUN)
    minutes: float | None = option(
        None,
        "stop after this many minutes, if --epochs or --steps are not reached first",
        above=0.0,
        group=_RUN,
    )
    batch_sentences: int = option(32, "rows per global batch", minimum=1, group=_BATCHES)
    max_length: int = option(
        128, "truncate rows longer than this, in tokens", minimum=4, group=_BATCHES
    )
    pool: str = option(
        "first",
        "state that represents a row: its first, or the mean",
        choices=("first", "mean"),
        group=_WHAT,
    )
    layers: str = option(
        "0:_1", "layers to train, FIRST:LAST; 0: the embeddings, _1: the last", group=_WHAT
    )
    dropout: float = option(0.1, "dropout in model and head", minimum=0.0, maximum=0.9, group=_WHAT)
    class_weights: str = option(
        "none",
        "balanced: rare classes weigh more in the loss",
        choices=("none", "balanced"),
        group=_WHAT,
    )
    seeds: int = option(
        1, "runs, with seeds from --seed on; reports mean and deviation", minimum=1, group=_RUN
    )
    evaluate_every: int = option(
        0, "steps between evaluations; 0: once per epoch", minimum=0, group=_EVALUATION
    )
    save_every: int = option(
        0, "steps between checkpoints; 0: once per epoch", minimum=0, group=_EVALUATION
    )
    keep: int = option(
        1, "number of most recent checkpoints to keep", minimum=1, group=_EVALUATION, advanced=True
    )


@dataclass(frozen=True)
class FinetuneOptimizerOptions(OptimizerOptions):
    """The optimizer for fine-tuning: smaller steps, and a separate learning rate for the head."""

    lr: float = option(2e-4, "peak learning rate of the encoder", above=0.0)
    head_lr: float = option(1e-3, "peak learning rate of the head", above=0.0)
    warmup: int = option(100, "steps of linear warm-up, at most a tenth of the run", minimum=0)
