"""``--init``: start from another model's weights, as far as they fit, and report what was copied.

Rows of token tables are matched by the tokens' written form, rows of language tables by language
code, so vocabularies and languages may differ.  Everything else is matched by name and shape; if
the other model has no decoder, a decoder takes what it has in common with an encoder
(docs/semantics.md, 4).

``--init-embeddings`` then replaces token embeddings by word vectors from a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from xlm_plugins.config.inherited import RecordedModel, with_ffn_dim
from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError, OptionError
from xlm_plugins.core.options import to_mapping
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import load_tokenizer
from xlm_plugins.model.description import ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.model.weights import load_tensors, named_weights
from xlm_plugins.runs.layout import TOKENIZER_NAME, WEIGHTS_NAME
from xlm_plugins.training.warm_start.word_vectors import open_word_vectors


@dataclass(frozen=True)
class InitReport:
    """What was copied from another model, and what was not.

    :param copied: parameters that were copied as a whole.
    :param partly: rows copied and rows in total, of parameters that were copied in part.
    :param new: parameters that keep their fresh values.
    :param left_out: parameters of the other model that were not used.
    :param at_zero: new layers, which add nothing at first.
    :param differing: options that the other model was trained with and that now differ.
    :param is_other_vocabulary: the tokenizers differ.
    :param unknown_languages: languages of the other model that the new one does not know.
    """

    origin: str
    copied: Sequence[str] = ()
    partly: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    new: Sequence[str] = ()
    left_out: Sequence[str] = ()
    at_zero: Sequence[str] = ()
    differing: Sequence[str] = ()
    is_other_vocabulary: bool = False
    unknown_languages: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The report as text, a few lines."""
        found = [f"started from {self.origin}: {len(self.copied)} tensors copied"]
        if self.differing:
            found.append(f"  differing from its training: {', '.join(self.differing)}")
        if self.is_other_vocabulary:
            found.append(
                "  the data has another tokenizer, so rows are matched by spelling; with "
                f"`xlm prepare --tokenizer-from {self.origin}` none are lost"
            )
        found += [f"  {name}: {n} of {of} rows found" for name, (n, of) in self.partly.items()]
        if self.new:
            found.append(f"  new, as initialised: {_some(self.new)}")
        if self.at_zero:
            found.append(f"  new layers, adding nothing at first: {_some(self.at_zero)}")
        if self.unknown_languages:
            found.append(
                f"  languages left out, which the data lacks: {_some(self.unknown_languages)}"
            )
        if self.left_out:
            found.append(f"  left out: {_some(self.left_out)}")
        return found


def initialise(
    model: Model,
    description: ModelDescription,
    tokenizer: Tokenizer,
    path: Path,
    plugins: Plugins,
    stack: str = "",
) -> InitReport:
    """Copy what fits of the bundle at ``path`` into ``model``.

    :param description: of ``model``.
    :param tokenizer: of ``model``.
    :param stack: the one stack to copy into; empty for the whole model.
    :raises BundleError: the widths differ, so that nothing fits.
    :raises OptionError: ``model`` has no such stack.
    """
    theirs = RecordedModel.read(path)
    _check_fit(description, theirs, path, stack)
    weights = load_tensors(path / WEIGHTS_NAME)
    their_tokenizer = load_tokenizer(plugins, path / TOKENIZER_NAME)
    tables = {
        "tokens": _row_map(tokenizer.tokens(), their_tokenizer.tokens()),
        "languages": _row_map(_by_id(description.languages), _by_id(theirs.languages)),
    }
    own = {
        name: tensor
        for name, tensor in named_weights(model).items()
        if name.startswith(f"{stack}." if stack else "")
    }
    names = {name: _their_name(name, theirs.stacks) for name in own}
    rows = {
        name: _copy(tensor, weights.get(names[name]), _table_of(name), tables)
        for name, tensor in own.items()
    }
    new = [name for name, found in rows.items() if found is None]
    return InitReport(
        str(path),
        copied=[name for name, found in rows.items() if found and found[0] == found[1]],
        partly={name: found for name, found in rows.items() if found and found[0] != found[1]},
        new=new,
        left_out=sorted(weights.keys() - names.values()),
        at_zero=begin_at_zero(model, new),
        differing=_differing_options(description, theirs),
        is_other_vocabulary=tokenizer.fingerprint != their_tokenizer.fingerprint,
        unknown_languages=_unknown_languages(description, theirs),
    )


def _check_fit(
    description: ModelDescription, theirs: RecordedModel, path: Path, stack: str
) -> None:
    if stack and stack not in description.stacks:
        raise OptionError(
            f"--init {stack}={path}: the model to train has no {stack}",
            expected=f"one of {', '.join(description.stacks)}, or the run alone",
        )
    if theirs.options.dim != description.options.dim:
        raise BundleError(
            f"--init {path}: its width is {theirs.options.dim}, the new model's is "
            f"{description.options.dim}",
            remedy=f"train with --dim {theirs.options.dim}",
        )


def initialise_embeddings(
    model: Model, options: ModelOptions, tokenizer: Tokenizer, path: Path
) -> str:
    """Copy word vectors into the token embeddings of every stack.

    All vectors are scaled by one factor, so that together they have the norm of the rows that they
    replace.  Unscaled they may be several times larger, and would drown the positions, the tokens
    that were not found and, with a tied output, the scores of those tokens.  An untied output layer
    gets them too, as with ``--init``.

    :returns: how many were found, as a line for the user.
    :raises DataError: the file holds no word vectors, or none of the tokens.
    :raises OptionError: their width is not the model's.
    """
    vectors = open_word_vectors(path)
    if vectors.dim != options.dim:
        n_heads = max(n for n in range(1, options.n_heads + 1) if vectors.dim % n == 0)
        heads = f" --n-heads {n_heads}" if n_heads < options.n_heads else ""
        raise OptionError(
            f"--init-embeddings {path}: its vectors have {vectors.dim} dimensions, and the model's "
            f"width is {options.dim}",
            remedy=f"train with --dim {vectors.dim}{heads}",
        )
    found = vectors.find(tokenizer.tokens())
    rows, given = torch.from_numpy(found.rows), torch.from_numpy(found.vectors)
    given /= given.norm().clamp(min=torch.finfo(given.dtype).tiny)
    with torch.no_grad():
        for name, tensor in named_weights(model).items():
            if _table_of(name) == "tokens" and tensor.shape[1:] == given.shape[1:]:
                tensor[rows] = given * tensor[rows].norm()
    n_found, n_tokens = len(rows), len(tokenizer.tokens())
    share = f"{100 * n_found / n_tokens:.1f} %"
    return f"word vectors of {path}: {n_found:,} of {n_tokens:,} rows found ({share})"


def _differing_options(own: ModelDescription, theirs: RecordedModel) -> list[str]:
    """Options of both models that differ, such as ``dropout 0.2 (0.1)``."""
    ours, there = to_mapping(with_ffn_dim(own.options)), to_mapping(with_ffn_dim(theirs.options))
    return [f"{key} {ours[key]} ({there[key]})" for key in ours if ours[key] != there[key]]


def _unknown_languages(own: ModelDescription, theirs: RecordedModel) -> list[str]:
    """Languages whose embeddings are lost."""
    both_embed = own.options.language_embeddings and theirs.options.language_embeddings
    return [code for code in theirs.languages if both_embed and code not in own.languages]


def _their_name(name: str, stacks: Collection[str]) -> str:
    """The name of a parameter in the other model, which has these stacks."""
    stack, _, rest = name.partition(".")
    return f"encoder.{rest}" if stack == "decoder" and stack not in stacks else name


def begin_at_zero(model: Model, new: Collection[str]) -> list[str]:
    """Let layers that are entirely new add nothing to the model at first.

    :param new: names of the parameters that were not copied.
    :returns: those layers, such as ``pkm at enc.2``.
    """
    at_zero = []
    for position, layer in model.layers_by_position.items():
        names = _own_names(model, layer)
        if names and names <= set(new):
            layer.begin_at_zero()
            at_zero.append(f"{layer.name} at {position}")
    return at_zero


def _own_names(model: nn.Module, part: nn.Module) -> set[str]:
    """The names in a model of the parameters of one of its parts."""
    held = {id(parameter) for parameter in part.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in held}


@torch.no_grad()
def _copy(
    tensor: Tensor,
    given: Tensor | None,
    table: str | None,
    tables: Mapping[str, tuple[Tensor, Tensor]],
) -> tuple[int, int] | None:
    """Copy what fits of a tensor.

    :returns: rows copied and rows in total (1 and 1 unless rows are matched); None if it does
        not fit.
    """
    if given is None or given.shape[1:] != tensor.shape[1:]:
        return None
    if table is not None and table in tables:
        own_rows, their_rows = tables[table]
        tensor[own_rows] = given[their_rows]
        return len(own_rows), len(tensor)
    if table == "positions":
        n_rows = min(len(tensor), len(given))
        tensor[:n_rows] = given[:n_rows]
        return n_rows, len(tensor)
    if given.shape != tensor.shape:
        return None
    tensor.copy_(given)
    return 1, 1


def _table_of(name: str) -> str | None:
    """The table that a parameter is, if any: it decides how rows are matched."""
    for stack in ("encoder", "decoder"):
        if name in (f"{stack}.output.bias", f"{stack}.output.weight"):
            return "tokens"
        for table in ("tokens", "languages", "positions"):
            if name == f"{stack}.embeddings.{table}.weight":
                return table
    return None


def _row_map(own: Sequence[str], theirs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The indices (ours, theirs) of the rows that both have."""
    row_of = {text: row for row, text in enumerate(theirs)}
    pairs = [(row, row_of[text]) for row, text in enumerate(own) if text in row_of]
    found = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _by_id(languages: Mapping[str, int]) -> list[str]:
    return sorted(languages, key=lambda code: languages[code])


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
