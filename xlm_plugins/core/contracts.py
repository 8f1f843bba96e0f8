"""The contracts: what an objective, a layer and a tokenizer must offer, and may rely on.

Plugin authors subclass these; nothing else of the runtime is theirs to know.  Where they get a
``model``, it is the root module (`xlm_plugins.model.root.Model`) that holds every stack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor, nn

from xlm_plugins.core.batch import Batch, Layout, LossOutput, Samples, Step, Vocabulary
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.ragged import Ragged
from xlm_plugins.core.task import Task

if TYPE_CHECKING:
    from xlm_plugins.model.config import ModelOptions
    from xlm_plugins.model.root import Model

__all__ = ["Layer", "Objective", "ParameterGroup", "StackName", "Task", "Tokenizer", "Trainable"]
StackName = Literal["encoder", "decoder"]


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


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimised otherwise than the rest; None means as the run does.

    :param parameters: the layer's own parameters.
    :param lr: the peak learning rate of the group.
    :param schedule: ``constant`` keeps the rate at ``lr`` from the first update on.
    :param betas: Adam's decay rates.
    :param weight_decay: decoupled weight decay.
    :param touched_rows: an update leaves a row (along the first axis) whose gradient is zero as
        it is, weight, moments and all; other rows are updated as ever (lazy Adam).
    """

    parameters: tuple[nn.Parameter, ...]
    lr: float | None = None
    schedule: Literal["constant"] | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    touched_rows: bool = False


class Layer(nn.Module):
    """A module put into a transformer stack, in place of a layer's FFN or after a layer.

    Either way the stack adds the result to its input: ``x + layer(x)``; in place of an FFN the
    layer's LayerNorm and dropout follow as they do for an FFN.

    :param options: the component's options object.
    :param dim: width of the model.
    """

    name: str = ""

    def __init__(self, options: Any, dim: int) -> None:
        super().__init__()
        self.options = options
        self.dim = dim

    @classmethod
    def build(cls, options: Any, dim: int, n_positions: int) -> list[Layer]:
        """The layers of one selection, one a position, from torch's current random state.

        Override it where they share parameters; each other parameter is a layer's own.
        """
        return [cls(options, dim) for _ in range(n_positions)]

    @classmethod
    def default_position(cls, n_layers: int) -> str:
        """Where the layer goes when the user says nothing, in the flag's own notation."""
        return str(n_layers // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map packed states to packed states; rows do not see each other.

        Gradients must reach the parameters in one order, however many rows there are: ZeRO 2 and 3
        sum them over ranks as they come.

        :param x: shape (n_tokens, dim).
        :returns: shape (n_tokens, dim).
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameters that want a rate of their own; those not named are the run's."""
        return []

    def train_only(self) -> tuple[str, ...]:
        """Shell patterns over the model's parameters, if the layer wants all others frozen.

        The parameters of such layers are trained whatever the patterns say.  ``--train-only``
        of the user's wins over all of this.
        """
        return ()

    def begin_at_zero(self) -> None:
        """Change the parameters so that the output is zero, whatever the input.

        Called when the layer joins a model that was trained without it (``--init``).  A layer
        that cannot, or is so from the start, leaves itself as it is.
        """

    def statistics(self) -> dict[str, Tensor]:
        """Counters gathered in eval mode since `reset_statistics`: sums, which batches add up to.

        The same names and shapes each time, zeros where nothing was counted; what was handed out
        does not change afterwards.
        """
        return {}

    def reset_statistics(self) -> None:
        """Set the counters to zero; the runtime calls it around every batch of an evaluation."""

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, float]:
        """Turn counters, summed over all ranks, into named numbers."""
        return {}


class Tokenizer(ABC):
    """Text to ids and back.  Special ids go by role, and no number is assumed anywhere."""

    ROLES = ("bos", "eos", "pad", "unk", "mask", "sep")

    begin_role: str = "eos"
    """The role of the id before a sentence: EOS as XLM has it, or BOS as RoBERTa has it."""

    @classmethod
    @abstractmethod
    def train(
        cls, texts: Iterable[str], vocabulary_size: int, options: Any, folder: Path, workers: int
    ) -> Tokenizer:
        """Learn a vocabulary and save it into an empty folder.

        :param texts: sentences, already sampled to a bounded amount.
        :raises DataError: the text cannot give the vocabulary that was asked for.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read what `save` or `train` wrote.

        :raises BundleError: the folder holds no such tokenizer, or a damaged one.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into a folder that exists."""

    def in_language(self, language: str) -> Tokenizer:
        """The tokenizer for text of one language: the same ids, by that language's rules.

        By default itself; override it where rules differ by language.
        """
        return self

    @classmethod
    def from_hugging_face(cls, folder: Path) -> Tokenizer | None:
        """The tokenizer in a folder of transformers, for `xlm import hf`; None if it is of another
        kind."""
        return None

    def to_hugging_face(self) -> Any | None:
        """The same as a `tokenizers.Tokenizer` without a frame, for `xlm export hf`; None if it has
        no such form."""
        return None

    @abstractmethod
    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        """Encode sentences, one row each, without any frame of special tokens.

        :param continues: the texts go on in the middle of a line, so nothing that marks a
            line's beginning is put before them; a space at their own beginning begins a word.
        """

    @abstractmethod
    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Decode rows of ids to text; special tokens leave nothing behind."""

    @abstractmethod
    def tokens(self) -> list[str]:
        """The written form of every id, in order of id."""

    @abstractmethod
    def special(self, role: str) -> int:
        """The id of a role (see ROLES).

        :raises KeyError: no such role.
        """

    @abstractmethod
    def reserved(self) -> tuple[int, ...]:
        """Every id that text never encodes to, in rising order."""

    @property
    def frame(self) -> tuple[int, int]:
        """The ids before and behind a sentence."""
        return self.special(self.begin_role), self.special("eos")

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of everything that decides what text encodes to."""

    def vocabulary(self) -> Vocabulary:
        """What objectives and models need to know of this tokenizer."""
        roles = {role: self.special(role) for role in self.ROLES}
        if self.begin_role != "eos":
            roles["begin"] = self.special(self.begin_role)
        return Vocabulary(len(self.tokens()), roles, self.reserved())
