"""``--init``: start from another model's weights, as far as they fit, and report how far.

Rows of token tables go by the token's written form, rows of language tables by the language's
code, so that vocabularies and languages may differ.  All else goes by name and shape; a decoder
takes what it has in common with an encoder where the other model has no decoder
(docs/semantics.md, 4).

``--init-embeddings`` then puts word vectors of a file in the place of token embeddings.
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


@dataclass
class InitReport:
    """What became of each parameter."""

    origin: str
    copied: list[str] = field(default_factory=list)
    partly: dict[str, tuple[int, int]] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    at_zero: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    is_other_vocabulary: bool = False
    unknown_languages: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text, a few lines."""
        found = [f"started from {self.origin}: {len(self.copied)} tensors copied"]
        if self.differing:
            found.append(f"  not as it was trained there: {', '.join(self.differing)}")
        if self.is_other_vocabulary:
            found.append(
                "  the data has another tokenizer, so rows go by the tokens' spelling; with "
                f"`xlm prepare --tokenizer-from {self.origin}` none is lost"
            )
        found += [f"  {name}: {n} of {of} rows found" for name, (n, of) in self.partly.items()]
        if self.new:
            found.append(f"  new, as initialised: {_some(self.new)}")
        if self.at_zero:
            found.append(f"  new layers, adding nothing at first: {_some(self.at_zero)}")
        if self.unknown_languages:
            found.append(
                f"  languages left out, as the data has none: {_some(self.unknown_languages)}"
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
    """Copy into ``model`` what fits of the bundle at ``path``.

    :param description: of the model that is to be trained.
    :param tokenizer: of the model that is to be trained.
    :param stack: the one stack that is to be filled; empty for the whole model.
    :raises BundleError: the widths differ, so that nothing fits.
    :raises OptionError: the model has no such stack.
    """
    if stack and stack not in description.stacks:
        raise OptionError(
            f"--init {stack}={path}: what is trained has no {stack}",
            expected=f"one of {', '.join(description.stacks)}, or the run alone",
        )
    theirs = RecordedModel.read(path)
    if theirs.options.dim != description.options.dim:
        raise BundleError(
            f"--init {path}: its width is {theirs.options.dim}, the new model's is "
            f"{description.options.dim}",
            remedy=f"train with --dim {theirs.options.dim}",
        )
    weights = load_tensors(path / WEIGHTS_NAME)
    their_tokenizer = load_tokenizer(plugins, path / TOKENIZER_NAME)
    tables = {
        "tokens": _row_map(tokenizer.tokens(), their_tokenizer.tokens()),
        "languages": _row_map(_by_id(description.languages), _by_id(theirs.languages)),
    }
    report = _begun_report(str(path), description, theirs)
    report.is_other_vocabulary = tokenizer.fingerprint != their_tokenizer.fingerprint
    used = set()
    with torch.no_grad():
        for name, tensor in named_weights(model).items():
            if name.startswith(f"{stack}." if stack else ""):
                their_name = _their_name(name, theirs.stacks)
                used.add(their_name)
                given = weights.get(their_name)
                _copy(name, tensor, given, _table_of(name), tables, report)
    report.left_out = sorted(weights.keys() - used)
    begin_at_zero(model, report)
    return report


def initialise_embeddings(
    model: Model, options: ModelOptions, tokenizer: Tokenizer, path: Path
) -> str:
    """Copy word vectors into the token embeddings of every stack.

    One factor gives them all together the size of the rows that they replace: as they are they
    may be several times as large, and would drown the positions, the tokens that were not found
    and, in a tied output, the scores of these.  An output layer of its own gets them too, as with
    ``--init``.

    :returns: what was found, a line for people.
    :raises DataError: the file holds no word vectors, or none of the tokens.
    :raises OptionError: they are not as wide as the model.
    """
    vectors = open_word_vectors(path)
    if vectors.dim != options.dim:
        n_heads = max(n for n in range(1, options.n_heads + 1) if vectors.dim % n == 0)
        heads = f" --n-heads {n_heads}" if n_heads < options.n_heads else ""
        raise OptionError(
            f"--init-embeddings {path}: its vectors have {vectors.dim} numbers, and the model's "
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


def _begun_report(origin: str, own: ModelDescription, theirs: RecordedModel) -> InitReport:
    """What no weight shows: other options, and languages that are no longer known."""
    ours, there = to_mapping(with_ffn_dim(own.options)), to_mapping(with_ffn_dim(theirs.options))
    differing = [f"{key} {ours[key]} ({there[key]})" for key in ours if ours[key] != there[key]]
    both_tell = own.options.language_embeddings and theirs.options.language_embeddings
    lost = [code for code in theirs.languages if both_tell and code not in own.languages]
    return InitReport(origin, differing=differing, unknown_languages=lost)


def _their_name(name: str, stacks: Collection[str]) -> str:
    """What the other model, with these stacks, calls a parameter."""
    stack, _, rest = name.partition(".")
    return f"encoder.{rest}" if stack == "decoder" and stack not in stacks else name


def begin_at_zero(model: Model, report: InitReport) -> None:
    """Let the layers of which nothing was found add nothing to the model that they join."""
    for position, layer in model.layers_by_position.items():
        names = _own_names(model, layer)
        if names and names <= set(report.new):
            layer.begin_at_zero()
            report.at_zero.append(f"{layer.name} at {position}")


def _own_names(model: nn.Module, part: nn.Module) -> set[str]:
    """The names in a model of the parameters that a part of it holds."""
    held = {id(parameter) for parameter in part.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in held}


def _copy(
    name: str,
    tensor: Tensor,
    given: Tensor | None,
    table: str | None,
    tables: Mapping[str, tuple[Tensor, Tensor]],
    report: InitReport,
) -> None:
    if given is None or given.shape[1:] != tensor.shape[1:]:
        report.new.append(name)
    elif table is not None and table in tables:
        own_rows, their_rows = tables[table]
        tensor[own_rows] = given[their_rows]
        _count(report, name, len(own_rows), len(tensor))
    elif table == "positions":
        n_rows = min(len(tensor), len(given))
        tensor[:n_rows] = given[:n_rows]
        _count(report, name, n_rows, len(tensor))
    elif given.shape == tensor.shape:
        tensor.copy_(given)
        report.copied.append(name)
    else:
        report.new.append(name)


def _count(report: InitReport, name: str, n_found: int, n_rows: int) -> None:
    if n_found == n_rows:
        report.copied.append(name)
    else:
        report.partly[name] = (n_found, n_rows)


def _table_of(name: str) -> str | None:
    """Which table a parameter is, so by what its rows are mapped."""
    for stack in ("encoder", "decoder"):
        if name in (f"{stack}.output.bias", f"{stack}.output.weight"):
            return "tokens"
        for table in ("tokens", "languages", "positions"):
            if name == f"{stack}.embeddings.{table}.weight":
                return table
    return None


def _row_map(own: Sequence[str], theirs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Row numbers (ours, theirs) of what both have."""
    row_of = {text: row for row, text in enumerate(theirs)}
    pairs = [(row, row_of[text]) for row, text in enumerate(own) if text in row_of]
    found = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _by_id(languages: Mapping[str, int]) -> list[str]:
    return sorted(languages, key=lambda code: languages[code])


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
