"""The contracts of what can be trained: any loss, and an objective of pretraining."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from xlm_plugins.contracts.batch import Batch, Layout, LossOutput, Samples, Step, Vocabulary
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.selection import StackName

if TYPE_CHECKING:
    from xlm_plugins.config.model import ModelOptions
    from xlm_plugins.model.model import Model


class Trainable(ABC):
    """What an engine can train a model on: a loss, and the modules that it needs.

    An `Objective` is one, and so is the head of a downstream task.
    """

    name: str = ""
    """What the modules and the metrics are called."""

    def modules(self, options: ModelOptions) -> dict[str, nn.Module]:
        """Parameters of the objective's own, such as a classifier's head, by name.

        The root module takes them in; ``model.head(self.name, key)`` gives them back.
        """
        return {}

    def prepare(self, model: Model, batch: Batch, step: Step) -> Batch:
        """Complete a batch with the model, without gradient; back-translation generates here.

        The model is in eval mode, the batch on its device.  torch's random state is a function of
        (seed, update, micro-batch, rank).  What counts as targets must not change in number.
        """
        return batch

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> LossOutput:
        """The loss of a batch: a sum over samples, each for itself.

        What stands beside a sample, and where, must not matter: ranks and accumulation divide a
        global batch as they like.  In eval mode nothing is drawn.  The batch is left as it is.
        No collectives and no I/O in here.  Whatever a batch holds, gradients come in one order:
        ranks add them up as they come, and one rank's batch may have nothing to predict.
        """


class Objective(Trainable):
    """One way to train: how samples become a batch, and how a batch becomes a loss.

    An instance lives in the trainer and in every loader worker, so it must be picklable and
    must hold no tensors; parameters of its own come from `modules`.

    :param options: the component's options object.
    :param vocabulary: sizes and special ids of the data's tokenizer.
    :param languages: id of each language that the model knows.
    """

    stacks: frozenset[StackName] = frozenset({"encoder"})
    n_languages: tuple[int, ...] = (1,)
    """How many languages a step may name: 1 for ``en``, 2 for ``en-fr``, 3 for ``en-fr-en``."""
    predicts: Literal["next token", "masked tokens"] | None = None
    """What a model trained on it can be used for.

    ``next token``: ``model.causal_stack`` learns to predict each token from those before it, so the
    model generates text and gives causal log-probabilities.  ``masked tokens``: the encoder learns
    to predict tokens hidden by MASK, so it fills masks and gives pseudo-log-likelihoods.  None:
    neither, or only given a source.
    """

    def __init__(self, options: Any, vocabulary: Vocabulary, languages: Mapping[str, int]) -> None:
        self.options = options
        self.vocabulary = vocabulary
        self.languages = dict(languages)

    @abstractmethod
    def layout(self, step: Step) -> Layout:
        """How the samples of a step are cut out of the text."""

    @abstractmethod
    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        """Turn one lane's samples into a packed batch.

        Called in loader workers.  All randomness must come from ``rng``, which is keyed by
        (seed, step, lane): the same call gives the same batch on any number of processes.
        """

    def steps(self, languages: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[Step]:
        """The steps when the user names none: every language, or both orders of every pair.

        :raises DataError: the data has nothing to train on, and there is more to say of it.
        """
        found = []
        if 1 in self.n_languages:
            found += [Step((language,)) for language in languages]
        elif 2 in self.n_languages:
            found += [Step(order) for pair in pairs for order in (pair, pair[::-1])]
        return found

    def parse_step(self, text: str) -> Step:
        """Read a step as the user wrote it.

        :raises OptionError: the objective cannot train on that many languages.
        """
        step = Step.parse(text)
        if len(step.languages) not in self.n_languages:
            forms = {1: "a language such as en", 2: "a pair such as en-fr", 3: "a loop en-fr-en"}
            raise OptionError(
                f"{self.name}:{text} names {len(step.languages)} language(s)",
                expected=" or ".join(forms[n] for n in self.n_languages),
            )
        return step

    def evaluation_batches(
        self, samples: Samples, step: Step, rng: np.random.Generator
    ) -> dict[str, Batch]:
        """The batches that evaluation measures; ``rng`` is the same at every evaluation.

        The key ``""`` gives the objective's own metric, ``valid_en_mlm_ppl``; another key is
        part of the name: ``alone`` gives ``valid_en-fr_tlm_alone_ppl``.
        """
        return {"": self.make_batch(samples, step, rng)}

    def translations(self, step: Step) -> tuple[Step, ...]:
        """What evaluation lets the model translate after training on a step.

        ``en-fr`` is measured against the French side of held-out pairs, ``en-fr-en`` (there
        and back) against the held-out English text itself.
        """
        return ()
