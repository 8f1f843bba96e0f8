"""Trained models from Python, in three lines::

    import xlm_plugins

    model = xlm_plugins.load("my-run")
    model.translate(["Bonjour."], source="fr", target="en")

The first call of `load` imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from xlm_plugins.config.model import GenerationOptions
    from xlm_plugins.inference.fill_mask import Filling
    from xlm_plugins.inference.generate import Continuation
    from xlm_plugins.inference.predict import Prediction
    from xlm_plugins.inference.score import SentenceScore
    from xlm_plugins.inference.translate import Translation
    from xlm_plugins.model.bundle import Bundle


def load(reference: str | PathLike[str], device: str = "cpu") -> LoadedModel:
    """Load a trained model, ready to be used.

    :param reference: a run folder (its best model), ``RUN@last``, ``RUN@step-N``, or a bundle.
    :param device: a torch device.
    :raises BundleError: there is no such model, or it is damaged.
    :raises PluginError: a plugin that it was made with is missing.
    """
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.runs.find import find_bundle

    return LoadedModel(Bundle.load(find_bundle(fspath(reference)), Plugins.discover(), device))


def _one_row(line: str) -> str:
    """A line that fits a terminal; there may be a hundred languages."""
    return line if len(line) < 80 else f"{line[:75]} ..."


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """A trained model and its uses."""

    bundle: Bundle

    def __repr__(self) -> str:
        """What it is and what it can do, on one screen."""
        described, bundle = self.bundle.description, self.bundle
        options = described.options
        total = sum(p.numel() for p in bundle.model.parameters())
        tables = sum(
            p.numel() for name, p in bundle.model.named_parameters() if ".embeddings." in name
        )
        facts = {
            "model": f"{' and '.join(described.stacks)} of {options.n_layers} layers, "
            f"{options.dim} wide",
            "parameters": f"{total:,}, of them embeddings {tables:,}",
            "languages": ", ".join(self.languages),
            "vocabulary": f"{described.vocabulary.size:,} tokens",
            "trained on": ", ".join(bundle.objectives),
            "layers": ", ".join(f"{p.component.name} at {p.position}" for p in described.layers),
            "head": bundle.classifier.name if bundle.classifier else "",
            "methods": ", ".join(self._uses()),
            "from": str(bundle.path),
        }
        lines = [f"  {title:10}  {text}" for title, text in facts.items() if text]
        return "\n".join(["LoadedModel", *map(_one_row, lines)])

    def _uses(self) -> list[str]:
        """The methods that this model was trained for."""
        from xlm_plugins.inference.common import predicts

        generates, fills = (predicts(self.bundle, w) for w in ("next token", "masked tokens"))
        return [
            *["embed"] * ("encoder" in self.bundle.description.stacks),
            *["fill_mask"] * fills,
            *["score"] * (generates or fills),
            *["generate"] * generates,
            *["translate"] * bool(self.directions),
            *["predict"] * (self.bundle.classifier is not None),
        ]

    @property
    def languages(self) -> list[str]:
        """The languages that the model knows."""
        return sorted(self.bundle.description.languages)

    @property
    def directions(self) -> list[tuple[str, str]]:
        """The (source, target) pairs that the model was trained to translate."""
        from xlm_plugins.inference.translate import directions

        return [(step.languages[0], step.languages[1]) for step in directions(self.bundle)]

    @property
    def language_ids(self) -> dict[str, int]:
        """The id of each language, for `extract_features`."""
        return dict(self.bundle.description.languages)

    def encode(self, text: str) -> Tensor:
        """The ids of a text in the frame that the model was trained with.  Shape: (length,)"""
        from xlm_plugins.inference.features import encode

        return encode(self.bundle, text)

    def decode(self, ids: Tensor) -> str:
        """The text of ids, without special tokens.

        :param ids: shape (length,).
        :raises DataError: an id is outside the vocabulary.
        """
        from xlm_plugins.inference.features import decode

        return decode(self.bundle, ids)

    @overload
    def extract_features(
        self,
        ids: Tensor,
        languages: Tensor | None = None,
        positions: Tensor | None = None,
        return_all_hiddens: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def extract_features(
        self,
        ids: Tensor,
        languages: Tensor | None = None,
        positions: Tensor | None = None,
        *,
        return_all_hiddens: Literal[True],
    ) -> list[Tensor]: ...

    def extract_features(
        self,
        ids: Tensor,
        languages: Tensor | None = None,
        positions: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> Tensor | list[Tensor]:
        """The encoder's states of every token, without gradient; zeros at padding.

        :param ids: token ids in their frames, as `encode` returns them; pad several rows with the
            tokenizer's padding id.  Shape: (length,) or (batch, length)
        :param languages: the language id of each token (`language_ids`); required if the model has
            several.  Shape: as ids
        :param positions: of each token, from 0; by default counted within each row.  Shape: as ids
        :param return_all_hiddens: return a list, the embeddings and each layer's states.
        :returns: the last layer's states, or that list.  Shape: (batch, length, dim)
        :raises DataError: shapes that differ, or a number out of range.
        :raises OptionError: languages are missing, or the model has no encoder.
        """
        from xlm_plugins.inference.features import extract_features

        states = extract_features(self.bundle, ids, languages, positions)
        return states if return_all_hiddens else states[-1]

    def translate(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        options: GenerationOptions | None = None,
    ) -> list[str]:
        """The best translation of each text.  A text that is too long is cut.

        :param options: how to search; greedy by default.
        :raises OptionError: the model was not trained for it; lists what it was trained for.
        """
        found = self.translations(texts, source, target, options)
        return [translations[0].text for translations in found]

    def translations(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        options: GenerationOptions | None = None,
        n_best: int = 1,
    ) -> list[list[Translation]]:
        """The ``n_best`` translations of each text with their scores, best first.

        :param n_best: at most ``options.beam``.
        :raises OptionError: as `translate`, or more translations than the beam is wide.
        """
        from xlm_plugins.inference.translate import Translator, check_direction

        check_direction(self.bundle, source, target)
        translator = Translator(self.bundle, source, target, options, n_best=n_best)
        return translator.translate(translator.encode(texts))

    def embed(
        self,
        texts: Sequence[str],
        language: str | None = None,
        *,
        layer: int = -1,
        pool: str = "mean",
    ) -> npt.NDArray[np.float32]:
        """Sentence embeddings.  A text that is too long is cut.

        :param language: of the texts; required if the model knows several.
        :param layer: 0 is the embedding layer, -1 the last.
        :param pool: ``mean`` over each sentence's tokens, or the ``first`` position's state.
        :returns: shape (len(texts), dim).
        :raises OptionError: an unknown language, no such layer, or a model without an encoder.
        """
        from xlm_plugins.inference.embed import embed

        return embed(self.bundle, texts, language, layer=layer, pool=pool)

    def score(
        self, texts: Sequence[str], language: str | None = None, *, kind: str | None = None
    ) -> list[float]:
        """The log-probability of each text; `scores` has those of its tokens."""
        return [found.score for found in self.scores(texts, language, kind=kind)]

    def scores(
        self, texts: Sequence[str], language: str | None = None, *, kind: str | None = None
    ) -> list[SentenceScore]:
        """The log-probability of each text and its tokens.  A text that is too long is cut.

        :param language: of the texts; required if the model knows several.
        :param kind: ``causal``, the log-probability of the text and its end, for models trained to
            predict the next token; ``pseudo``, the sum over its tokens, each masked in turn, for
            models trained to predict masked tokens.
        :raises OptionError: an unknown language, or a model that was not trained for it.
        """
        from xlm_plugins.inference.score import Scorer

        scorer = Scorer(self.bundle, language, kind=kind)
        return scorer.score(scorer.encode(texts))

    def generate(
        self,
        prompts: Sequence[str],
        language: str | None = None,
        options: GenerationOptions | None = None,
        *,
        max_tokens: int | None = None,
    ) -> list[str]:
        """Each prompt with its continuation; an empty one starts a new text.

        :param options: how to search; greedy by default.
        :raises OptionError: as `continuations`.
        """
        found = self.continuations(prompts, language, options, max_tokens=max_tokens)
        return [continuations[0].text for continuations in found]

    def continuations(
        self,
        prompts: Sequence[str],
        language: str | None = None,
        options: GenerationOptions | None = None,
        *,
        number: int = 1,
        max_tokens: int | None = None,
    ) -> list[list[Continuation]]:
        """Several continuations of each prompt with their scores; those of a beam best first.

        :param language: of the prompts; required if the model knows several.
        :param number: continuations per prompt: samples, or at most ``options.beam``.
        :param max_tokens: maximum number of tokens to generate; by default 100, if the model has
            the positions.
        :raises OptionError: an unknown language, or a model that was not trained to predict the
            next token.
        """
        from xlm_plugins.inference.generate import TextGenerator

        generator = TextGenerator(
            self.bundle, language, options, number=number, max_tokens=max_tokens
        )
        return generator.generate(prompts, generator.encode(prompts))

    def predict(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], language: str | None = None
    ) -> list[Prediction]:
        """What a fine-tuned model predicts for each text or pair.  Long ones are cut.

        :param texts: texts, or pairs if the task compares two.
        :param language: of the texts; required if the model knows several.
        :raises BundleError: the model was not fine-tuned.
        :raises OptionError: an unknown language, or the wrong number of texts for the task.
        """
        from xlm_plugins.inference.predict import Predictor

        predictor = Predictor(self.bundle, language)
        if not texts:
            return []
        rows = [(text,) if isinstance(text, str) else text for text in texts]
        tokens, _ = predictor.encode_columns(list(zip(*rows, strict=True)))
        return predictor.predict(tokens)

    @overload
    def fill_mask(  # type: ignore[overload-overlap]  # a str is a sequence of texts, too
        self, texts: str, language: str | None = None, *, top: int = 5
    ) -> list[list[Filling]]: ...

    @overload
    def fill_mask(
        self, texts: Sequence[str], language: str | None = None, *, top: int = 5
    ) -> list[list[list[Filling]]]: ...

    def fill_mask(
        self, texts: str | Sequence[str], language: str | None = None, *, top: int = 5
    ) -> list[list[Filling]] | list[list[list[Filling]]]:
        """The most probable tokens for each ``<mask>`` of a text, best first.

        :param texts: one text, or several.
        :param language: of the texts; required if the model knows several.
        :returns: for each mask, in order, a list of ``top`` fillings; for several texts, a list of
            these for each.
        :raises OptionError: a text without a mask, or one that is too long.
        """
        from xlm_plugins.inference.fill_mask import MaskFiller

        filler = MaskFiller(self.bundle, language, top=top)
        return filler.fill([texts])[0] if isinstance(texts, str) else filler.fill(texts)
