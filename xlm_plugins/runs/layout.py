"""The layout of a run and of a bundle.

::

    RUN/config.toml           settings in force, which `xlm train --config` repeats
    RUN/environment.json      of the last start: versions of plugins and libraries, git state,
                              machine, command
    RUN/history.jsonl         every start: from which step on, when, what it changed; a line each
    RUN/metrics.jsonl         one JSON object per line
    RUN/checkpoints/step-N/   a bundle, and what resuming needs besides: trainer.json and the
                              optimizer's moments
    RUN/best/METRIC/          the best bundle by a validation metric
    RUN/best/metrics.json     the metrics that models are kept for, in order
    RUN/hypotheses/step-N/    what an evaluation translated, with the scores' signatures
    RUN/plots/curves.png
    RUN/results.json          metrics of a fine-tuned model on all rows

    BUNDLE/model.json         the model's description
    BUNDLE/model.safetensors  its weights
    BUNDLE/tokenizer/         its tokenizer
    BUNDLE/plugins.json       which distributions made it
"""

from __future__ import annotations

from pathlib import Path

from xlm_plugins.core.errors import refuse_password

CONFIG_NAME = "config.toml"
ENVIRONMENT_NAME = "environment.json"
HISTORY_NAME = "history.jsonl"
METRICS_NAME = "metrics.jsonl"
CHECKPOINTS_NAME = "checkpoints"
BEST_NAME = "best"
ORDER_NAME = "metrics.json"
CURVES_NAME = "plots/curves.png"
RESULTS_NAME = "results.json"
TRAINER_NAME = "trainer.json"
LOCK_NAME = ".lock"

BUNDLE_FORMAT = 1
MODEL_NAME = "model.json"
WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer"


def split_reference(reference: str) -> tuple[Path, str]:
    """Split ``RUN@WHICH`` into path and WHICH, if any; the path may contain an ``@`` as well."""
    refuse_password(reference)
    run, _, which = reference.rpartition("@")
    if not run or Path(reference).is_dir():
        return Path(reference), ""
    return Path(run), which


def absolute_reference(reference: str) -> str:
    """``RUN`` or ``RUN@WHICH`` in a form that holds from any folder."""
    path, which = split_reference(reference)
    return f"{path.resolve()}{f'@{which}' if which else ''}"
