# ruff: noqa: RUF001 (text in several scripts)
"""``xlm export hf``: a model for transformers, which is reloaded and compared before it is kept."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from xlm_plugins.core.errors import OptionError, PluginError, RunError
from xlm_plugins.core.files import write_json, write_text
from xlm_plugins.inference.features import extract_features
from xlm_plugins.interop.huggingface.files import CONFIG_NAME, SAFETENSORS_NAME
from xlm_plugins.interop.huggingface.importing import OWN_TOKENIZER
from xlm_plugins.interop.huggingface.mapping import class_of, config_of, notes_on, weights_of
from xlm_plugins.interop.huggingface.model_card import model_card, transformers_use
from xlm_plugins.interop.huggingface.reload import (
    SAMPLE_NAME,
    TEXTS_NAME,
    Differences,
    compare_in_new_process,
)
from xlm_plugins.interop.huggingface.tokenizer import has_form, write_tokenizer
from xlm_plugins.interop.new_bundle import check_out, new_folder
from xlm_plugins.interop.weight_names import LANGUAGES, POSITIONS
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.model.weights import named_weights, save_tensors
from xlm_plugins.runs.layout import TOKENIZER_NAME

TOLERANCE = 1e-3
"""The largest difference in hidden states or scores that can be rounding."""

SAMPLE = (
    "In the beginning was the word, and the word was short.",
    "Au début était le mot, et l'été fut très léger.",
    "Am Anfang war das Wort, und das Wort war kürzer als gedacht.",
    "В начале было слово, и слово было коротким.",
    "आदि में वचन था",
    "太初有道，道與神同在。",
    "  two  spaces, 1,000.50 and MiXeD Case!",
    "",
)
"""Texts to compare tokenizers and models on."""


@dataclass(frozen=True)
class Export:
    """A model that can be exported, but is not written yet.

    :param bundle: the model as it will be exported.
    :param notes: what its users should know.
    """

    bundle: Bundle
    out: Path
    notes: tuple[str, ...]
    has_tokenizer: bool
    licence: str = "unknown"

    @classmethod
    def prepare(
        cls, bundle: Bundle, out: Path, *, language: str | None = None, licence: str = "unknown"
    ) -> Export:
        """Check that a model can be exported; nothing is written.

        :param language: export it for this language only, so that it needs no ``langs``.
        :raises XLMError: the model cannot be exported; says why.
        """
        check_out(out)
        for package in ("transformers", "tokenizers"):
            if find_spec(package) is None:
                raise PluginError(
                    f"the package {package} is not installed",
                    remedy="pip install 'xlm-plugins[hf]'",
                )
        if language is not None:
            bundle = _of_one_language(bundle, language)
        class_of(bundle)
        has_tokenizer = has_form(bundle)
        notes = notes_on(bundle)
        if has_tokenizer:
            notes.append("text that spells out a special token is that token in transformers")
        else:
            notes.append("transformers has no equivalent of its tokenizer: only our own is written")
        return cls(bundle, out, tuple(notes), has_tokenizer, licence)

    def write(self) -> Differences:
        """Write the folder, reload it in a process of its own, and compare.

        :raises RunError: the reloaded model differs; nothing is kept.
        """
        with new_folder(self.out) as folder, tempfile.TemporaryDirectory() as sample:
            self.fill(folder)
            found = self._compare(folder, Path(sample))
            use = transformers_use(self.bundle, found, self.out.name)
            card = model_card(self.bundle, self.notes, self.licence, self.out.name, use)
            write_text(folder / "README.md", card)
        return found

    def fill(self, folder: Path) -> None:
        """Write the model and its tokenizer into a folder."""
        write_json(folder / CONFIG_NAME, config_of(self.bundle))
        save_tensors(folder / SAFETENSORS_NAME, weights_of(self.bundle))
        if self.has_tokenizer:
            write_tokenizer(self.bundle, folder)
        shutil.copytree(self.bundle.path / TOKENIZER_NAME, folder / OWN_TOKENIZER)

    def _compare(self, folder: Path, sample: Path) -> Differences:
        self._write_sample(sample)
        found = compare_in_new_process(folder, sample)
        if not max(found.hidden, found.scores) <= TOLERANCE:
            raise RunError(
                f"{found.class_name} computes something else: hidden states differ by "
                f"{found.hidden:.2g}, scores by {found.scores:.2g}; nothing was kept",
                expected=f"at most {TOLERANCE:g}",
                remedy="use another version of transformers, such as the extra hf's",
            )
        return found

    def _write_sample(self, folder: Path) -> None:
        bundle, vocabulary = self.bundle, self.bundle.description.vocabulary
        rows = bundle.tokenizer.encode_batch(list(SAMPLE))
        ids = [row.tolist() for row in rows.framed(*vocabulary.frame).rows]
        longest = min(max(map(len, ids)), bundle.description.options.max_positions)
        grid = torch.full((len(ids), longest), vocabulary.roles["pad"])
        for row, values in enumerate(ids):
            grid[row, : len(values)] = torch.tensor(values[:longest])
        n_languages = max(len(bundle.description.languages), 1)
        languages = (torch.arange(len(ids)) % n_languages)[:, None].repeat(1, longest)
        hidden = extract_features(bundle, grid, languages)
        with torch.no_grad():
            scores = bundle.model.stack("encoder").scores(hidden[-1].flatten(0, 1))
        tensors = {f"hidden.{number}": states for number, states in enumerate(hidden)}
        tensors |= {"scores": scores.view(*grid.shape, -1), "ids": grid, "languages": languages}
        tensors["mask"] = grid != vocabulary.roles["pad"]
        save_tensors(folder / SAMPLE_NAME, {name: t.cpu() for name, t in tensors.items()})
        texts = {"texts": SAMPLE, "ids": ids, "has_tokenizer": self.has_tokenizer}
        write_json(folder / TEXTS_NAME, texts)


def _of_one_language(bundle: Bundle, language: str) -> Bundle:
    """The same model for one language, whose embedding is added to each position's.

    :raises OptionError: the model does not know it, or has no table of positions to add it to.
    """
    description = bundle.description
    known = description.known_languages
    if known is None or language not in known:
        raise OptionError(
            f"--language {language}: the model "
            + ("does not distinguish languages" if known is None else "does not know it"),
            expected=f"one of {', '.join(known)}" if known else "no --language",
        )
    if len(known) == 1:
        return bundle
    if description.options.position_embeddings != "learned":
        raise OptionError(
            "--language: its sinusoidal positions are not weights, so nothing can be added to them",
            expected="a model with learned positions",
        )
    alone = dataclasses.replace(description, languages={language: 0}, classifier=None)
    weights = dict(named_weights(bundle.model))
    weights[POSITIONS] = weights[POSITIONS] + weights.pop(LANGUAGES)[known[language]]
    model = alone.build_model(bundle.objectives).eval()
    with torch.no_grad():
        for name, tensor in named_weights(model).items():
            tensor.copy_(weights[name])
    return dataclasses.replace(bundle, description=alone, model=model, classifier=None)
