"""The root module, which holds every stack, every layer of a plugin and every head.

One engine wraps it and every forward pass goes through it, so that a distributed engine sees all
parameters and all their uses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Batch, LossOutput
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.contracts.objective import Trainable
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.selection import Position, StackName, check_positions
from xlm_plugins.model.nn.transformer import Source, Stack


class Model(nn.Module):
    """The module that the selected objectives train.

    :param options: the shape of every stack.
    :param vocabulary_size: number of token ids.
    :param n_languages: number of language ids.
    :param stacks: the stacks that the objectives need.
    :param pad: id of the padding token.
    :param layers: the plugins' layers, by position.
    :param heads: the objectives' own modules, by objective and key.
    :raises OptionError: a layer at a position that does not exist.
    """

    def __init__(
        self,
        options: ModelOptions,
        vocabulary_size: int,
        n_languages: int,
        stacks: Collection[StackName],
        pad: int,
        layers: Mapping[Position, Layer] | None = None,
        heads: Mapping[str, Mapping[str, nn.Module]] | None = None,
    ) -> None:
        super().__init__()
        self.options = options
        self._layers_by_position = dict(layers or {})
        check_positions(list(self._layers_by_position), stacks, options.n_layers)
        shape = (options, vocabulary_size, n_languages, pad)
        self.encoder = Stack(*shape, self._of("encoder")) if "encoder" in stacks else None
        self.decoder: Stack | None = None
        if "decoder" in stacks:
            self.decoder = Stack(*shape, self._of("decoder"), reads_source=True)
        self.heads = nn.ModuleDict(
            {objective: nn.ModuleDict(modules) for objective, modules in (heads or {}).items()}
        )

    def stack(self, name: StackName) -> Stack:
        """The encoder or the decoder.

        :raises OptionError: no objective of the model needs it, so it does not exist.
        """
        stack = self.encoder if name == "encoder" else self.decoder
        if stack is None:
            raise OptionError(
                f"the model has no {name}, which this needs",
                expected="a model trained with an objective that needs one",
            )
        return stack

    @property
    def causal_stack(self) -> Stack:
        """The stack that predicts the next token: the decoder if there is one, else the encoder."""
        return self.stack("encoder" if self.decoder is None else "decoder")

    @property
    def layers_by_position(self) -> dict[Position, Layer]:
        """All layers of plugins."""
        return dict(self._layers_by_position)

    def head(self, objective: str, key: str) -> nn.Module:
        """One of an objective's own modules.

        :raises KeyError: the objective has no such module.
        """
        modules = self.heads[objective]
        if not isinstance(modules, nn.ModuleDict):
            raise KeyError(objective)
        return modules[key]

    def predict_from_source(self, batch: Batch) -> LossOutput:
        """The decoder's loss, given the encoder's states of ``batch.source``.

        :param batch: the decoder's sequences, in the same order as those of the source.
        """
        if batch.source is None:
            raise ValueError("the batch has no source to predict from")
        source = Source(self.stack("encoder")(batch.source), batch.source.offsets)
        return self.stack("decoder").predict(batch, causal=True, source=source)

    def _of(self, stack: StackName) -> dict[Position, Layer]:
        """The plugins' layers of a stack."""
        layers = self._layers_by_position.items()
        return {position: layer for position, layer in layers if position.stack == stack}

    def forward(self, trainable: Trainable, batch: Batch) -> LossOutput:
        """The summed loss of a batch, as computed by the objective."""
        return trainable.loss(self, batch)
