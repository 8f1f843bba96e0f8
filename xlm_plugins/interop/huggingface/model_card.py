"""The model card: an exported model's ``README.md``, with the fields that Hugging Face reads."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlm_plugins.inference.common import is_causal
from xlm_plugins.interop.huggingface.reload import Differences
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.runs.layout import CONFIG_NAME, METRICS_NAME
from xlm_plugins.runs.metrics_file import read_metrics

_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Use:
    """What a card says of the library that the model was exported for.

    :param library: its name; ``pipeline`` is its task's, and ``tags`` are more to find it by.
    :param command: the command that wrote it.
    :param code: how to use it, in Python.
    :param comparison: how the reloaded model compared with ours.
    """

    library: str
    pipeline: str
    tags: tuple[str, ...]
    command: str
    code: str
    comparison: str


def model_card(bundle: Bundle, notes: Sequence[str], licence: str, name: str, use: Use) -> str:
    """The text of a model card."""
    run = _run_of(bundle.path)
    metrics = _metrics(run, bundle.path)
    sections = {
        "Languages": _languages(bundle),
        "Data": _data(run),
        "Metrics": "\n".join(f"- {key}: {value:.4g}" for key, value in metrics.items()) or _UNKNOWN,
        "Licence": licence,
        "Use": f"```python\n{use.code}\n```",
        "Notes": "\n".join(f"- {note}" for note in notes) or "None.",
        "Comparison": use.comparison,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    objectives = ", ".join(bundle.objectives) or "objectives that are not recorded"
    options = bundle.description.options
    what = (
        f"An encoder of {options.n_layers} layers of {options.dim}, trained on {objectives} with "
        f"xlm-plugins and exported by `{use.command}`."
    )
    return f"{_front_matter(bundle, licence, metrics, use)}\n# {name}\n\n{what}\n\n{body}\n"


def transformers_use(bundle: Bundle, found: Differences, name: str) -> Use:
    """The use of a model in transformers."""
    return Use(
        library="transformers",
        pipeline="text-generation" if is_causal(bundle) else "fill-mask",
        tags=(found.class_name,),
        command="xlm export hf",
        code=_code(bundle, found, name),
        comparison=_compared(found),
    )


def _front_matter(bundle: Bundle, licence: str, metrics: Mapping[str, float], use: Use) -> str:
    """The card's fields in YAML, each value written as JSON, so that it is quoted where needed."""
    fields: dict[str, Any] = {
        "language": list(bundle.description.languages) or ["multilingual"],
        "license": licence,
        "library_name": use.library,
        "pipeline_tag": use.pipeline,
        "tags": ["xlm-plugins", *use.tags],
        "metrics": ["perplexity"] if any(name.endswith("_ppl") for name in metrics) else [],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _languages(bundle: Bundle) -> str:
    described = bundle.description
    if described.known_languages is None or len(described.languages) < 2:
        named = ", ".join(described.languages) or _UNKNOWN
        return f"{named}. The model takes no language ids."
    rows = [f"| {name} | {number} |" for name, number in described.languages.items()]
    return "\n".join(["| language | `langs` |", "|---|---|", *rows])


def _data(run: Path | None) -> str:
    if run is None:
        return _UNKNOWN
    try:
        tree = tomllib.loads((run / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _UNKNOWN
    train = tree.get("train", {})
    # The folder's name only: its path may be private.
    data = f"`{Path(train['data']).name}`" if train.get("data") else _UNKNOWN
    objectives = ", ".join(f"`{objective}`" for objective in train.get("objective", []))
    steps = f", {train['steps']} updates" if train.get("steps") else ""
    return f"{data}, objectives {objectives}{steps}." if objectives else data


def _run_of(path: Path) -> Path | None:
    """The run that contains a bundle, as ``RUN/best/METRIC`` or ``RUN/checkpoints/step-N``."""
    run = path.resolve().parent.parent
    return run if (run / CONFIG_NAME).is_file() else None


def _metrics(run: Path | None, path: Path) -> Mapping[str, float]:
    """The metrics of this very model: those at its step, or those when its metric was best."""
    if run is None or not (run / METRICS_NAME).is_file():
        return {}
    records = [line for line in read_metrics(run / METRICS_NAME) if line["kind"] == "evaluation"]
    name = path.resolve().name
    measured = [record for record in records if name in record]
    if measured:
        sign = 1 if name.endswith("_ppl") else -1
        chosen = min(measured, key=lambda record: sign * record[name])
    else:
        chosen = next((r for r in records if f"step-{r['step']}" == name), {})
    return {k: v for k, v in chosen.items() if k.startswith(("valid_", "test_"))}


def _code(bundle: Bundle, found: Differences, name: str) -> str:
    lines = ["from transformers import AutoModelForMaskedLM, AutoTokenizer", ""]
    lines += [f'model = AutoModelForMaskedLM.from_pretrained("{name}")']
    if found.texts is None:
        return "\n".join(lines)
    lines += [
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        'inputs = tokenizer("A text.", return_tensors="pt")',
    ]
    known = bundle.description.known_languages
    if known and len(known) > 1:
        first, number = next(iter(known.items()))
        lines += [f'inputs["langs"] = inputs["input_ids"] * 0 + {number}  # {first}']
    return "\n".join([*lines, "scores = model(**inputs).logits"])


def _compared(found: Differences) -> str:
    text = (
        f"Loaded as {found.class_name} in a separate process, it differed from the original "
        f"model by at most {found.hidden:.2g} in hidden states and {found.scores:.2g} in scores"
    )
    if found.texts is None:
        return f"{text}. No tokenizer was compared."
    return f"{text}; {len(found.texts)} of the sample texts got different token ids."
