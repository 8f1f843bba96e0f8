"""What a training run can be told; torch-free, so that the command line can show it quickly."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins.core.options import option


@dataclass(frozen=True)
class OptimizerOptions:
    """Adam with decoupled weight decay, and its learning rate (SEMANTICS 6)."""

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
class TrainOptions:
    """A run: what it reads and writes, how long it goes on, and how it is split up."""

    objective: tuple[str, ...] = option((), "NAME[:STEPS][@WEIGHT], repeatable: tlm:en-fr")
    layer: tuple[str, ...] = option((), "NAME[:POSITIONS], repeatable: pkm:4,7+")
    data: str | None = option(None, "prepared data set; the embedded corpus if unset")
    out: str | None = option(None, "run folder; runs/ and a name if unset")
    resume: str | None = option(None, "run to go on with; auto: go on if --out holds one")
    init: tuple[str, ...] = option(
        (), "RUN, encoder=RUN or decoder=RUN, repeatable: whose weights to start from"
    )
    train_only: tuple[str, ...] = option((), "train only parameters whose names match a pattern")
    seed: int = option(1, "of everything random", minimum=0)
    steps: int = option(2000, "updates to train for", minimum=1)
    minutes: float | None = option(
        None, "end after so many minutes, if --steps do not before", above=0.0
    )
    batch_tokens: int = option(4096, "tokens of one global batch, on average", minimum=8)
    accumulation: int = option(1, "micro-batches a rank makes one update of", minimum=1)
    lanes: int = option(
        8, "parts a global batch is planned in; ranks x accumulation divides it", minimum=1
    )
    max_length: int = option(100, "drop sentences longer than this, in tokens", minimum=1)
    window: int = option(256, "tokens of a window of running text", minimum=2)
    sampling_alpha: float = option(
        0.7, "languages are drawn by size^alpha; 1 by size, 0 evenly", minimum=0.0, maximum=1.0
    )
    evaluate_every: int = option(500, "updates between evaluations; 0: only at the end", minimum=0)
    save_every: int = option(500, "updates between checkpoints; 0: only at the end", minimum=0)
    keep: int = option(2, "checkpoints to keep, the newest", minimum=1)
    translate_sentences: int = option(
        200, "held-out sentences of each direction that an evaluation translates", minimum=0
    )
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
    threads: int | None = option(None, "CPU threads; those of the machine if unset", minimum=1)
