"""``xlm export sentence-transformers``: a model that makes the vectors of ``xlm embed``.

The folder is that of ``xlm export hf`` with a pipeline of modules around it.  The files are those
that every version of sentence-transformers reads, whichever is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from xlm_plugins.core.errors import BundleError, OptionError, PluginError, RunError
from xlm_plugins.core.files import write_json, write_text
from xlm_plugins.inference.common import cut
from xlm_plugins.inference.embed import Embedder
from xlm_plugins.interop.huggingface.export import SAMPLE, Export
from xlm_plugins.interop.huggingface.model_card import Use, model_card
from xlm_plugins.interop.huggingface.reload import SAMPLE_NAME, TEXTS_NAME
from xlm_plugins.interop.huggingface.sentence_reload import (
    VectorDifferences,
    compare_in_new_process,
)
from xlm_plugins.interop.new_bundle import new_folder
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.weights import save_tensors

TOLERANCE = 1e-5
"""The largest difference in a component that can be rounding, where components are around 1."""

_ALMOST_NONE = 1e-8
"""The weight of EOS in a mean: lost to rounding beside a token's, all there is in an empty text."""


@dataclass(frozen=True)
class SentenceExport:
    """A model that can be exported as an encoder of sentences, but is not written yet.

    :param encoder: its export for transformers.
    :param pool: as in `Embedder`.
    :param normalize: whether vectors get length 1.
    :param prompts: what users may put before a text, by name.
    """

    encoder: Export
    pool: str = "mean"
    normalize: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        bundle: Bundle,
        out: Path,
        *,
        language: str | None = None,
        licence: str = "unknown",
        pool: str = "mean",
        normalize: bool = False,
        prompts: Mapping[str, str] | None = None,
    ) -> SentenceExport:
        """Check that a model can be exported; nothing is written.

        :param language: export it for this language only; required if it knows several.
        :raises XLMError: the model cannot be exported; says why.
        """
        if find_spec("sentence_transformers") is None:
            raise PluginError(
                "the package sentence-transformers is not installed",
                remedy="pip install 'xlm-plugins[sentence-transformers]'",
            )
        encoder = Export.prepare(bundle, out, language=language, licence=licence)
        known = encoder.bundle.description.known_languages
        if known is not None and len(known) > 1:
            raise OptionError(
                "sentence-transformers does not say which language a text is in, as the model's "
                "language embeddings need",
                expected=f"--language with one of {', '.join(sorted(known))}",
            )
        if not encoder.has_tokenizer:
            raise BundleError(
                "transformers has no equivalent of the model's tokenizer",
                expected="a tokenizer that xlm export hf converts",
                remedy="xlm embed makes the same vectors",
            )
        Embedder(encoder.bundle, pool=pool)  # refuses pools that this model cannot have
        return cls(encoder, pool, normalize, prompts or {})

    @property
    def notes(self) -> tuple[str, ...]:
        """What users of the exported model should know."""
        begin, end = self.encoder.bundle.description.vocabulary.frame
        if self.pool == "mean" and begin == end:
            empty = "an empty text gets the mean of its two EOS, in xlm embed the last one's state"
            return (*self.encoder.notes, empty)
        return self.encoder.notes

    def write(self) -> VectorDifferences:
        """Write the folder, reload it in a process of its own, and compare.

        :raises RunError: the reloaded model differs; nothing is kept.
        """
        encoder = self.encoder
        with new_folder(encoder.out) as folder, tempfile.TemporaryDirectory() as sample:
            encoder.fill(folder)
            self._write_modules(folder)
            found = self._compare(folder, Path(sample))
            name = encoder.out.name
            use = _use(name, found)
            card = model_card(encoder.bundle, self.notes, encoder.licence, name, use)
            write_text(folder / "README.md", card)
        return found

    def _write_modules(self, folder: Path) -> None:
        """Write the pipeline: one folder for each module after the encoder itself."""
        options = self.encoder.bundle.description.options
        modules = {"Transformer": ""}
        for number, (name, config) in enumerate(self._modules(), start=1):
            modules[name] = f"{number}_{name}"
            (folder / modules[name]).mkdir()
            write_json(folder / modules[name] / "config.json", config)
        write_json(
            folder / "modules.json",
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": path,
                    "type": f"sentence_transformers.models.{name}",
                }
                for i, (name, path) in enumerate(modules.items())
            ],
        )
        reading = {"max_seq_length": options.max_positions, "do_lower_case": False}
        write_json(folder / "sentence_bert_config.json", reading)
        write_json(
            folder / "config_sentence_transformers.json",
            {
                "prompts": dict(self.prompts),
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
            },
        )

    def _modules(self) -> list[tuple[str, dict[str, Any]]]:
        modules: list[tuple[str, dict[str, Any]]] = []
        if self.pool == "mean":
            modules.append(("WordWeights", self._weights_without_frame()))
        pooling = {
            "word_embedding_dimension": self.encoder.bundle.description.options.dim,
            "pooling_mode_cls_token": self.pool == "first",
            "pooling_mode_mean_tokens": self.pool == "mean",
        }
        modules.append(("Pooling", pooling))
        if self.normalize:
            modules.append(("Normalize", {}))
        return modules

    def _weights_without_frame(self) -> dict[str, Any]:
        """A weight for each token in the mean: 1, but (almost) 0 for BOS and EOS."""
        bundle = self.encoder.bundle
        forms = bundle.tokenizer.tokens()
        begin, end = (forms[i] for i in bundle.description.vocabulary.frame)
        frame = {begin: 0.0} | {end: _ALMOST_NONE}
        # WordWeights looks a word without a weight up once more in lower case.
        namesakes = {form: 1.0 for form in forms if form not in frame and form.lower() in frame}
        return {"vocab": forms, "word_weights": frame | namesakes, "unknown_word_weight": 1.0}

    def _compare(self, folder: Path, sample: Path) -> VectorDifferences:
        largest = self._write_sample(sample)
        found = compare_in_new_process(folder, sample)
        if not found.largest <= TOLERANCE * max(1.0, largest):
            raise RunError(
                f"sentence-transformers makes other vectors than xlm embed: they differ by "
                f"{found.largest:.2g}; nothing was kept",
                expected=f"at most {TOLERANCE:g}",
                remedy="use another version of sentence-transformers",
            )
        return found

    def _write_sample(self, folder: Path) -> float:
        """Write our vectors of the sample texts; returns the largest component."""
        bundle = self.encoder.bundle
        begin, end = bundle.description.vocabulary.frame
        longest = bundle.description.options.max_positions
        texts = [text for text in SAMPLE if text or begin != end]  # the note says why
        texts.append(" ".join([SAMPLE[0]] * longest))  # a text that is cut
        embedder = Embedder(bundle, pool=self.pool)
        rows = embedder.encode(texts)
        vectors = torch.from_numpy(embedder.embed(rows))
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors)
        framed = cut(rows, embedder.longest).framed(begin, end)
        save_tensors(folder / SAMPLE_NAME, {"vectors": vectors})
        ids = [row.tolist() for row in framed.rows]
        write_json(folder / TEXTS_NAME, {"texts": texts, "ids": ids})
        return float(vectors.abs().max())


def _use(name: str, found: VectorDifferences) -> Use:
    return Use(
        library="sentence-transformers",
        pipeline="sentence-similarity",
        tags=("sentence-transformers", "feature-extraction"),
        command="xlm export sentence-transformers",
        code=f'''from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
vectors = model.encode(["A text.", "Another one."])''',
        comparison=(
            "Loaded in a separate process, it made vectors that differ from those of `xlm embed` "
            f"by at most {found.largest:.2g}; {len(found.texts)} of the sample texts got "
            "different token ids."
        ),
    )
