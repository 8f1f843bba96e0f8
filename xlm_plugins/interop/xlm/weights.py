"""The weights of XLM's stacks as ours: renamed, and checked against the options."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.selection import StackName
from xlm_plugins.interop.weight_names import import_weights, xlm_names
from xlm_plugins.interop.xlm.memories import with_memories
from xlm_plugins.interop.xlm.options import SUPPORTED
from xlm_plugins.model.nn.embeddings import SinusoidalPositions

SINUSOIDS_DIFFER = 1e-3
"""The largest difference between tables of sinusoids that can be rounding."""


def stack_weights(
    theirs: Mapping[str, Tensor], options: ModelOptions, n_languages: int, stack: StackName
) -> dict[str, Tensor]:
    """The weights of a stack as our model saves them: without computed and shared ones.

    :raises BundleError: the weights contradict the options.
    """
    theirs = dict(theirs)
    if options.position_embeddings == "sinusoidal":
        _check_sinusoids(theirs.pop("position_embeddings.weight", None), options, stack)
    if options.tied_output:
        tokens = theirs.get("embeddings.weight")
        _check_tied(theirs.pop("pred_layer.proj.weight", None), tokens, stack)
    names = with_memories(xlm_names(options, n_languages, stack=stack), theirs, stack)
    return import_weights(names, theirs, f"the checkpoint's {stack}", SUPPORTED)


def _check_sinusoids(table: Tensor | None, options: ModelOptions, stack: StackName) -> None:
    if table is None:
        return
    wanted = SinusoidalPositions(options.max_positions, options.dim).table
    if table.shape != wanted.shape or (table - wanted).abs().max() > SINUSOIDS_DIFFER:
        raise BundleError(
            f"the {stack}'s positions should be sinusoids (sinusoidal_embeddings), but are not",
            expected="the positions of arXiv 1706.03762, section 3.5",
        )


def _check_tied(output: Tensor | None, tokens: Tensor | None, stack: StackName) -> None:
    if output is None or tokens is None or output.data_ptr() == tokens.data_ptr():
        return
    if not torch.equal(output, tokens):
        raise BundleError(
            f"the {stack}'s output layer should share the token embedding's weight "
            "(share_inout_emb), but has another",
            expected="two equal tensors, or share_inout_emb = False",
        )
