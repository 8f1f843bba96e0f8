"""What a training run can be told; torch-free, so that the command line can show it quickly."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins.core.options import option


@dataclass(frozen=True)
class OptimizerOptions:
    """Adam with decoupled weight decay, and its learning rate (docs/semantics.md, 6)."""

    lr: float = option(1e-3, "peak learning rate", above=0.0)
    schedule: str = option(
        "linear",
        "of the learning rate: linear falls to zero over the run",
        choices=("linear", "inverse_sqrt", "cosine", "constant"),
    )
    warmup: int = option(200, "updates of linear warm-up", minimum=0)
    beta1: float = option(0.9, "Adam's decay of the first moment", minimum=0.0, maximum=0.9999)
    beta2: float = option(0.98, "Adam's decay of the second moment", minimum=0.0, maximum=0.9999)
    eps: float = option(1e-8, "added to Adam's denominator", above=0.0)
    weight_decay: float = option(0.0, "decoupled weight decay", minimum=0.0)
    clip: float = option(1.0, "greatest norm of the gradient; 0 does not clip", minimum=0.0)
    cosine_period: int = option(
        0, "updates of the first cosine period; 0: one period over the run", minimum=0
    )
    cosine_multiplier: float = option(1.0, "each cosine period is this much longer", above=0.0)
    cosine_shrink: float = option(1.0, "each cosine period peaks this much lower", above=0.0)


@dataclass(frozen=True)
class RunOptions:
    """A run, whatever it trains: how long it goes on, what it writes, and how it is split up."""

    out: str | None = option(None, "run folder; runs/ and a name if unset")
    resume: str | None = option(None, "run to go on with; auto: go on if --out holds one")
    train_only: tuple[str, ...] = option((), "train only parameters whose names match a pattern")
    seed: int = option(1, "of everything random", minimum=0)
    steps: int = option(2000, "updates to train for", minimum=1)
    minutes: float | None = option(
        None, "end after so many minutes, if --steps do not before", above=0.0
    )
    accumulation: int = option(1, "micro-batches a rank makes one update of", minimum=1)
    evaluate_every: int = option(500, "updates between evaluations; 0: only at the end", minimum=0)
    save_every: int = option(500, "updates between checkpoints; 0: only at the end", minimum=0)
    keep: int = option(2, "checkpoints to keep, the newest", minimum=1)
    validation_metrics: tuple[str, ...] = option(
        (), "keep the best model of each metric; a leading _ says lower is better", comma=True
    )
    stopping_criterion: str | None = option(
        None, "METRIC,N: stop after N evaluations without improvement"
    )
    log_every: int = option(10, "updates between lines of metrics.jsonl", minimum=1)
    engine: str = option(
        "auto", "auto: deepspeed for many processes", choices=("auto", "torch", "deepspeed")
    )
    zero_stage: int = option(1, "what ZeRO shards over ranks", minimum=0, maximum=3)
    deepspeed_config: str | None = option(None, "JSON file added to the DeepSpeed configuration")
    precision: str = option(
        "auto", "auto: bf16 on a GPU that has it", choices=("auto", "fp32", "bf16", "fp16")
    )
    workers: int = option(0, "loader processes beside the trainer", minimum=0)
    hang_minutes: float = option(
        10.0, "end a run, with status 75, in which nothing moved for so long", above=0.0
    )
    threads: int | None = option(None, "CPU threads; those of the machine if unset", minimum=1)


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """Pretraining and translation: what is trained on what."""

    objective: tuple[str, ...] = option((), "NAME[:STEPS][@WEIGHT], repeatable: tlm:en-fr")
    layer: tuple[str, ...] = option((), "NAME[:POSITIONS], repeatable: pkm:4,7+; '' for none")
    data: str | None = option(
        None, "prepared data set, a folder or its URL; the embedded corpus if unset"
    )
    data_cache: str | None = option(
        None, "where shards of a URL are kept; $WDS_CACHE or the user's cache folder if unset"
    )
    data_cache_gb: float | None = option(
        None, "GB of shards kept there; $WDS_CACHE_SIZE (bytes) or 50 GB if unset", above=0.0
    )
    skip_bad_shards: bool = option(
        False, "leave out training text that cannot be read, and count it"
    )
    init: tuple[str, ...] = option(
        (),
        "RUN, encoder=RUN or decoder=RUN, repeatable: whose weights to start from; what is not "
        "said of the model, its layers and their options is as in RUN",
    )
    init_embeddings: str | None = option(
        None, "word vectors to start the token embeddings from: fastText .bin or .vec"
    )
    batch_tokens: int = option(4096, "tokens of one global batch, on average", minimum=8)
    lanes: int = option(
        8, "parts a global batch is planned in; ranks x accumulation divides it", minimum=1
    )
    max_length: int = option(100, "drop sentences longer than this, in tokens", minimum=1)
    window: int = option(256, "tokens of a window of running text", minimum=2)
    group_by_length: bool = option(
        False, "make batches of sentences of like length, in random order: bt then runs faster"
    )
    sampling_alpha: float = option(
        0.7, "languages are drawn by size^alpha; 1 by size, 0 evenly", minimum=0.0, maximum=1.0
    )
    translate_sentences: int = option(
        200, "held-out sentences of each direction that an evaluation translates", minimum=0
    )


@dataclass(frozen=True)
class FinetuneOptions(RunOptions):
    """Fine-tuning on a downstream task."""

    from_: str | None = option(None, "RUN: whose encoder to start from")
    epochs: float = option(3.0, "times to go through the training rows", above=0.0)
    steps: int = option(0, "updates to train for; 0: as many as --epochs makes", minimum=0)
    batch_sentences: int = option(32, "rows of one global batch", minimum=1)
    max_length: int = option(128, "cut rows longer than this, in tokens", minimum=4)
    pool: str = option(
        "first", "what stands for a row: its first state, or the mean", choices=("first", "mean")
    )
    layers: str = option("0:_1", "layers to train, FIRST:LAST; 0 the embeddings, _1 the last")
    dropout: float = option(0.1, "dropout in model and head", minimum=0.0, maximum=0.9)
    class_weights: str = option(
        "none", "balanced: rare classes count more in the loss", choices=("none", "balanced")
    )
    seeds: int = option(1, "runs, with seeds from --seed on; tells mean and deviation", minimum=1)
    evaluate_every: int = option(0, "updates between evaluations; 0: once an epoch", minimum=0)
    save_every: int = option(0, "updates between checkpoints; 0: once an epoch", minimum=0)
    keep: int = option(1, "checkpoints to keep, the newest", minimum=1)


@dataclass(frozen=True)
class FinetuneOptimizerOptions(OptimizerOptions):
    """The optimizer of fine-tuning: gentler, and with a rate of its own for the head."""

    lr: float = option(2e-4, "peak learning rate of the encoder", above=0.0)
    head_lr: float = option(1e-3, "peak learning rate of the head", above=0.0)
    warmup: int = option(100, "updates of linear warm-up; at most a tenth of the run", minimum=0)
