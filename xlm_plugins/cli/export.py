"""``xlm export``: convert a model for other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from xlm_plugins.cli.lazy import LazyGroup
from xlm_plugins.cli.values import languages, run_argument
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.messages import note
from xlm_plugins.runs.layout import WEIGHTS_NAME

if TYPE_CHECKING:
    from xlm_plugins.model.bundle import Bundle

Command = TypeVar("Command", bound=Callable[..., object])


@click.group(cls=LazyGroup)
def export() -> None:
    """Convert a model for other libraries.

    RUN is a run folder (its best model), RUN@last, RUN@step-N, or a bundle.
    """


def _for_a_hub(command: Command) -> Command:
    """The arguments of an export that others may publish."""
    for decorate in (
        click.option(
            "--license",
            "licence",
            default="unknown",
            show_default=True,
            help="Licence for the model card, such as mit.",
        ),
        click.option(
            "--language",
            shell_complete=languages,
            help="Export a model of this one language, without ids of it.",
        ),
        click.argument("out", type=click.Path(path_type=Path)),
        run_argument,
    ):
        command = decorate(command)
    return command


@export.command()
@_for_a_hub
@click.pass_context
def hf(context: click.Context, run: str, out: Path, language: str | None, licence: str) -> None:
    """Write RUN to OUT as a model of transformers, and compare the two.

    The encoder becomes an XLMWithLMHeadModel, an XLMRobertaForMaskedLM or, with RoBERTa's
    tokenizer, a RobertaForMaskedLM, with configuration, safetensors, a fast tokenizer and a
    model card.  It is then loaded in a new process, and the hidden states, scores and token ids of
    sample text are compared.
    """
    from xlm_plugins.interop.huggingface.export import Export

    prepared = Export.prepare(_open(context, run), out, language=language, licence=licence)
    _say(prepared.notes)
    found = prepared.write()
    note(
        f"{out}: loaded as {found.class_name}; the largest differences are "
        f"{found.hidden:.2g} in hidden states and {found.scores:.2g} in scores"
    )
    _say(
        [
            "pooling is not part of it: sentence-transformers adds its own, and makes other "
            "vectors than xlm embed; xlm export sentence-transformers makes the same"
        ]
    )
    _list_texts(found.texts)


@export.command("sentence-transformers")
@_for_a_hub
@click.option(
    "--pool",
    type=click.Choice(["mean", "first"]),
    default="mean",
    show_default=True,
    help="The mean over a sentence's tokens, or the state of the first position.",
)
@click.option("--normalize", is_flag=True, help="Give every vector the length 1.")
@click.option(
    "--prompt",
    "prompts",
    metavar="NAME=TEXT",
    multiple=True,
    help="A text that model.encode(..., prompt_name=NAME) puts before each text. [repeatable]",
)
@click.pass_context
def sentence_transformers(
    context: click.Context,
    run: str,
    out: Path,
    language: str | None,
    licence: str,
    pool: str,
    normalize: bool,
    prompts: tuple[str, ...],
) -> None:
    """Write RUN to OUT as a model of sentence-transformers, and compare the two.

    Its model.encode(texts) makes the vectors of xlm embed: the model of xlm export hf is followed
    by modules that pool its states.  It is then loaded in a new process, and the vectors and token
    ids of sample text are compared; if the vectors differ, nothing is kept.
    """
    from xlm_plugins.interop.huggingface.sentence_export import SentenceExport

    prepared = SentenceExport.prepare(
        _open(context, run),
        out,
        language=language,
        licence=licence,
        pool=pool,
        normalize=normalize,
        prompts=_named(prompts),
    )
    _say(prepared.notes)
    found = prepared.write()
    note(
        f"{out}: loaded as SentenceTransformer; the largest difference from the vectors of "
        f"xlm embed is {found.largest:.2g}"
    )
    _list_texts(found.texts)


@export.command()
@run_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.pass_context
def safetensors(context: click.Context, run: str, out: Path) -> None:
    """Write the weights of RUN, any model, and a description in JSON to OUT."""
    from xlm_plugins.interop.safetensors_export import DESCRIPTION_NAME, export_safetensors

    export_safetensors(_open(context, run), out)
    note(f"{out}: {WEIGHTS_NAME} and {DESCRIPTION_NAME}")


def _open(context: click.Context, run: str) -> Bundle:
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.runs.find import find_bundle

    return Bundle.load(find_bundle(run), context.obj.plugins)


def _say(notes: Iterable[str]) -> None:
    for text in notes:
        note(f"note: {text}")


def _list_texts(texts: list[str] | None) -> None:
    if texts is not None:
        note(f"sample texts whose token ids differ: {len(texts)}")
        for text in texts:
            note(f"  {text!r}")


def _named(prompts: tuple[str, ...]) -> dict[str, str]:
    """Prompts by name.

    :raises OptionError: one has no name, or two have the same.
    """
    pairs = [prompt.partition("=") for prompt in prompts]
    for (name, equals, _), prompt in zip(pairs, prompts, strict=True):
        if not (name and equals):
            raise OptionError(f"--prompt {prompt!r} has no name", expected="NAME=TEXT")
    named = {name: text for name, _, text in pairs}
    if len(named) < len(pairs):
        raise OptionError("two --prompt have the same name", expected="a name for each")
    return named
