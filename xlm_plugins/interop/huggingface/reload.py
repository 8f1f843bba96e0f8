"""An exported model, opened by transformers in a process of its own, beside what ours computed.

``python -m xlm_plugins.interop.huggingface.reload MODEL SAMPLE`` prints the differences as JSON.
SAMPLE holds
``sample.safetensors`` (ids, mask, languages, positions; hidden.N and scores, as ours are) and
``texts.json`` (the texts and the ids that ours are).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, no_grad

SAMPLE_NAME, TEXTS_NAME = "sample.safetensors", "texts.json"


def compare(model_folder: Path, sample_folder: Path) -> dict[str, Any]:
    """The largest differences of hidden states and scores, and the texts whose ids differ."""
    from transformers import AutoModelForMaskedLM

    sample = load_file(sample_folder / SAMPLE_NAME)
    model = AutoModelForMaskedLM.from_pretrained(model_folder).eval()
    given = {"input_ids": sample["ids"], "attention_mask": sample["mask"].long()}
    if getattr(model.config, "n_langs", 1) > 1 and model.config.use_lang_emb:
        given["langs"] = sample["languages"]
    with no_grad():
        found = model(**given, output_hidden_states=True)
    real = sample["mask"].bool()

    def largest(theirs: Tensor, ours: Tensor) -> float:
        return float((theirs - ours)[real].abs().max())

    hidden = [largest(x, sample[f"hidden.{i}"]) for i, x in enumerate(found.hidden_states)]
    n_layers = sum(name.startswith("hidden.") for name in sample)
    return {
        "class": type(model).__name__,
        "hidden": max(hidden) if len(hidden) == n_layers else float("inf"),
        "scores": largest(found.logits, sample["scores"]),
        **_compare_texts(model_folder, json.loads((sample_folder / TEXTS_NAME).read_text())),
    }


def _compare_texts(model_folder: Path, sample: dict[str, Any]) -> dict[str, Any]:
    if not sample["has_tokenizer"]:
        return {"tokenizer": None}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    pairs = zip(sample["texts"], sample["ids"], strict=True)
    differ = [text for text, ids in pairs if tokenizer(text)["input_ids"] != ids]
    return {"tokenizer": type(tokenizer).__name__, "texts_differ": differ}


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]))))


@dataclass(frozen=True)
class Differences:
    """What the reloaded model computes, against ours.

    :param class_name: the class that opened the folder.
    :param hidden: the largest difference of a hidden state, over all layers and tokens.
    :param scores: the same of a score.
    :param texts: texts that the reloaded tokenizer cuts otherwise; None without a tokenizer.
    """

    class_name: str
    hidden: float
    scores: float
    texts: list[str] | None
