"""An exported model as transformers opens it, compared with ours, in a process of its own.

``python -m xlm_plugins.interop.huggingface.reload MODEL SAMPLE`` opens the folder MODEL and prints
the `Differences` as JSON.  The folder SAMPLE holds what our model made of some texts:
``sample.safetensors`` (ids, mask, languages; hidden.N and scores) and ``texts.json`` (texts, ids).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, no_grad

from xlm_plugins.core.errors import RunError

SAMPLE_NAME, TEXTS_NAME = "sample.safetensors", "texts.json"


@dataclass(frozen=True)
class Differences:
    """How the reloaded model differs from ours.

    :param class_name: the class that opened the folder.
    :param hidden: the largest difference in a hidden state, over all layers and tokens.
    :param scores: the largest difference in a score.
    :param texts: texts that the reloaded tokenizer encodes differently; None without a tokenizer.
    """

    class_name: str
    hidden: float
    scores: float
    texts: list[str] | None


def compare(model_folder: Path, sample_folder: Path) -> Differences:
    """Open a model with transformers and compare it."""
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
    return Differences(
        type(model).__name__,
        max(hidden) if len(hidden) == n_layers else float("inf"),
        largest(found.logits, sample["scores"]),
        _texts_that_differ(model_folder, sample_folder),
    )


def _texts_that_differ(model_folder: Path, sample_folder: Path) -> list[str] | None:
    sample = json.loads((sample_folder / TEXTS_NAME).read_text())
    if not sample["has_tokenizer"]:
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    pairs = zip(sample["texts"], sample["ids"], strict=True)
    return [text for text, ids in pairs if tokenizer(text)["input_ids"] != ids]


def compare_in_new_process(model_folder: Path, sample_folder: Path) -> Differences:
    """`compare` in a process that knows nothing but the files.

    :raises RunError: transformers cannot open the model.
    """
    return Differences(**run_in_new_process("transformers", __name__, model_folder, sample_folder))


def run_in_new_process(library: str, module: str, *folders: Path) -> Any:
    """Run ``python -m MODULE FOLDER ...`` offline; returns what its last line says in JSON.

    :raises RunError: it failed: the library cannot open the model.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"{library} cannot open the exported model: {reason}; nothing was kept")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(asdict(compare(Path(sys.argv[1]), Path(sys.argv[2])))))
