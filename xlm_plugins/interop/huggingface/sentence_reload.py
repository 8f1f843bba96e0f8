"""An exported model as sentence-transformers opens it, compared with ours, in its own process.

``python -m xlm_plugins.interop.huggingface.sentence_reload MODEL SAMPLE`` opens the folder MODEL
and prints the `VectorDifferences` as JSON.  The folder SAMPLE holds what our model made of some
texts: ``sample.safetensors`` (vectors) and ``texts.json`` (texts, ids).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file

from xlm_plugins.interop.huggingface.reload import SAMPLE_NAME, TEXTS_NAME, run_in_new_process


@dataclass(frozen=True)
class VectorDifferences:
    """How the vectors of the reloaded model differ from ours.

    :param largest: the largest difference in a component, over the texts with the same token ids.
    :param texts: the texts that the reloaded tokenizer encodes differently.
    """

    largest: float
    texts: list[str]


def compare(model_folder: Path, sample_folder: Path) -> VectorDifferences:
    """Open a model with sentence-transformers and compare it."""
    from sentence_transformers import SentenceTransformer

    sample = json.loads((sample_folder / TEXTS_NAME).read_text())
    ours = load_file(sample_folder / SAMPLE_NAME)["vectors"]
    model = SentenceTransformer(str(model_folder), device="cpu")
    theirs = model.encode(sample["texts"], convert_to_tensor=True)
    ids = model.tokenizer(sample["texts"], truncation=True)["input_ids"]
    alike = [mine == found for mine, found in zip(sample["ids"], ids, strict=True)]
    return VectorDifferences(
        float((theirs - ours)[alike].abs().max()) if any(alike) else float("inf"),
        [text for text, same in zip(sample["texts"], alike, strict=True) if not same],
    )


def compare_in_new_process(model_folder: Path, sample_folder: Path) -> VectorDifferences:
    """`compare` in a process that knows nothing but the files.

    :raises RunError: sentence-transformers cannot open the model.
    """
    found = run_in_new_process("sentence-transformers", __name__, model_folder, sample_folder)
    return VectorDifferences(**found)


if __name__ == "__main__":
    print(json.dumps(asdict(compare(Path(sys.argv[1]), Path(sys.argv[2])))))
