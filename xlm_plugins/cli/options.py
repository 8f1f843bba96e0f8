"""Flags built from options dataclasses, for commands whose flags depend on selected plugins.

Arguments are parsed twice: first with the flags that the command always has, which say what is
selected, then with the flags of the selected components too.  The tokenizer of `xlm prepare`, for
example::

    def select(first: click.Context) -> list[Section]:
        name = first.params["tokenizer"]
        return [Section.of(first.obj.plugins.get("tokenizer", name), name)]

    @click.command(cls=SectionedCommand, select=select)
    @click.argument("source")
    @click.option("--tokenizer", default="sentencepiece")
    @click.pass_context
    def prepare(context: click.Context, source: str, tokenizer: str) -> None:
        component = context.obj.plugins.get("tokenizer", tokenizer)
        options = component.options_from(given(context).get(tokenizer, {}))

`given` returns only what was written on the command line or set in the environment
(``XLM_TRAIN_LR``, ``XLM_TRAIN_TLM_MASK_PROB``), so that a TOML file can come between them and the
defaults.  Limits are checked by `core.options.build`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from xlm_plugins.cli.values import runs
from xlm_plugins.cli.variables import note_unknown_variables, variable_of, variable_of_option
from xlm_plugins.core.errors import (
    OptionError,
    SeveralOptionsError,
    XLMError,
    raise_together,
)
from xlm_plugins.core.options import OptionField, fields_of
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import KINDS, Component

_SET_BY_USER = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
_FLAGS = f"{__name__}.flags"
_GIVEN = f"{__name__}.given"
_GIVEN_BY = f"{__name__}.given_by"
_HELP_ALL = "help_all"
_ALIKE = 0.65
"""From this ratio of difflib on, a flag is suggested in place of an unknown one."""

_OF_RUNS = ("resume", "init", "from_")
"""Options whose values are runs."""


@dataclass(frozen=True)
class Section:
    """The options of one owner: one heading of the help, one key of `given`.

    :param key: the owner's key in `given` and in TOML: ``train``, ``tlm``.
    :param title: the heading.
    :param options: the options dataclass.
    :param prefix: precedes each flag's name: empty, or ``tlm.``.
    :param advanced: all of them are shown by ``--help-all`` only.
    """

    key: str
    title: str
    options: type
    prefix: str = ""
    advanced: bool = False

    @classmethod
    def of(cls, component: Component, name: str) -> Section:
        """The section of a component, under the name by which the user selected it."""
        return cls(name, f"{name} ({component.kind})", component.options, f"{name}.")


Select = Callable[[click.Context], Sequence[Section]]


def given(context: click.Context) -> dict[str, dict[str, Any]]:
    """The values of flags and environment variables: by section, then by option name."""
    values: dict[str, dict[str, Any]] = context.meta.setdefault(_GIVEN, {})
    return values


def given_by(context: click.Context) -> dict[str, str]:
    """What gave each value of `given`: ``optimizer.lr`` to ``--lr`` or ``XLM_TRAIN_LR``."""
    names: dict[str, str] = context.meta.setdefault(_GIVEN_BY, {})
    return names


def asks_for_help(context: click.Context) -> bool:
    """Whether the arguments include ``--help`` or ``--help-all``, which the first parse ignores."""
    option = context.command.get_help_option(context)
    names = (_HELP_ALL, str(option.name) if option else "")
    return any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names)


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file with any of these options; flags override it.  RUN/config.toml repeats a run.",
)
"""Of commands that train."""

errors_option = click.option(
    "--errors",
    type=click.Choice(["strict", "replace"]),
    default="strict",
    help="Bytes that are not UTF-8: strict is an error, replace puts U+FFFD in their place.",
)
"""Of commands that read text."""


class SectionedCommand(click.Command):
    """A command with flags from options dataclasses, some of which the arguments select.

    :param core: the sections that it always has.
    :param select: returns the sections of what is selected, given the context of the first parse:
        its ``params``, its `given` flags and ``obj``.  Whatever it stores in ``meta`` is in the
        command's own context too.
    """

    def __init__(
        self,
        *args: Any,
        core: Sequence[Section] = (),
        select: Select = lambda first: (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_help_all())
        self._core = core
        self._select = select

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse with the core's flags, and again with those of what they select."""
        first = self._first_parse(ctx, args)
        selected = self._selected(first, completing=ctx.resilient_parsing)
        ctx.meta.update(first.meta)
        ctx.meta[_GIVEN], ctx.meta[_GIVEN_BY] = {}, {}
        ctx.meta[_FLAGS] = [*_flags(selected), *ctx.meta[_FLAGS]]
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [flag for p in self.get_params(ctx) for flag in (*p.opts, *p.secondary_opts)]
            raise _unknown_flag(error.option_name, known, ctx.obj.plugins) from error
        if not ctx.resilient_parsing:
            prefix = str(ctx.auto_envvar_prefix)
            own = [p for p in super().get_params(ctx) if isinstance(p, click.Option)]
            known = [variable_of_option(prefix, option) for option in own]
            known += [flag.variable(ctx) for _, flag in _flags_in(ctx)]
            note_unknown_variables(prefix, known)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors about values of environment variables name the variables."""
        try:
            return super().invoke(ctx)
        except OptionError as error:
            each = error.errors if isinstance(error, SeveralOptionsError) else [error]
            raise_together([_naming_variable(one, given_by(ctx)) for one in each])

    def _selected(self, first: click.Context, completing: bool) -> Sequence[Section]:
        """What the arguments select; a line that a shell completes may select it only later."""
        try:
            return self._select(first)
        except XLMError:
            if completing:
                return ()
            raise

    def _first_parse(self, ctx: click.Context, args: Sequence[str]) -> click.Context:
        """Parse leniently: bad values are dropped, and unknown options stay in ``args``."""
        first = click.Context(
            self,
            info_name=ctx.info_name,
            obj=ctx.obj,
            help_option_names=ctx.help_option_names,
            auto_envvar_prefix=ctx.auto_envvar_prefix,
            resilient_parsing=True,
            ignore_unknown_options=True,
            allow_extra_args=True,
        )
        first.meta[_FLAGS] = _flags(self._core)
        super().parse_args(first, list(args))
        return first

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters and those of its sections."""
        return [*super().get_params(ctx), *(flag for _, flag in _flags_in(ctx))]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, those of what is selected, and the core's, by group."""
        # Arguments are left out: the usage line shows them and the text explains them.
        own = [p for p in super().get_params(ctx) if isinstance(p, click.Option)]
        if not any(flag.advanced for _, flag in _flags_in(ctx)):
            own = [option for option in own if option.name != _HELP_ALL]
        groups: dict[str, list[click.Option]] = {"Options": own}
        for title, flag in _flags_in(ctx):
            if ctx.meta.get(_HELP_ALL) or not flag.advanced:
                groups.setdefault(flag.group or title, []).append(flag)
        for title, options in groups.items():
            records = [option.get_help_record(ctx) for option in options]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how many options are hidden, then the command's own last words."""
        n_hidden = sum(flag.advanced for _, flag in _flags_in(ctx))
        if n_hidden and not ctx.meta.get(_HELP_ALL):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(f"{n_hidden} more options: {ctx.command_path} --help-all")
        super().format_epilog(ctx, formatter)


def _help_all() -> click.Option:
    """The flag that shows the help with the advanced options."""

    def show(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            ctx.meta[_HELP_ALL] = True
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()

    return click.Option(
        ["--help-all", _HELP_ALL],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show this message with all options and exit.",
    )


def _flags_in(ctx: click.Context) -> list[tuple[str, _Flag]]:
    """The flags of a command's sections, each with its section's title."""
    flags: list[tuple[str, _Flag]] = ctx.meta.get(_FLAGS, [])
    return flags


def _flags(sections: Sequence[Section]) -> list[tuple[str, _Flag]]:
    return [(s.title, _Flag(s, field)) for s in sections for field in fields_of(s.options)]


class _Flag(click.Option):
    """One field of an options dataclass as a flag, whose value is kept only if it was given."""

    def __init__(self, section: Section, field: OptionField) -> None:
        switch = field.kind is bool
        self._section = section
        self._field = field
        self.group = field.info.group
        self.advanced = section.advanced or field.info.advanced
        name = re.sub(r"\W", "_", f"of_{section.key}__{field.name}")
        super().__init__(
            ["--x/--no-x" if switch else "--x", name],
            type=click.BOOL if switch else _Value(field),
            default=None,
            multiple=field.many,
            help=f"{field.info.help}{_note(field)}",
            expose_value=False,
            callback=self._keep,
        )
        # Not passed to click, which would read the slash of xlm-gate/gate as that of --x/--no-x.
        self.opts = [f"--{section.prefix}{field.key}"]
        self.secondary_opts = [f"--{section.prefix}no-{field.key}"] if switch else []

    def variable(self, ctx: click.Context) -> str:
        """The environment variable that sets it: ``XLM_TRAIN_TLM_MASK_PROB``."""
        return variable_of(str(ctx.auto_envvar_prefix), f"{self._section.prefix}{self._field.key}")

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The variable's value; None if it is not set, or empty."""
        return os.environ.get(self.variable(ctx)) or None

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """What a bad value was given to: the flag or the variable."""
        return self._given_by(ctx) if ctx else super().get_error_hint(ctx)

    def _given_by(self, ctx: click.Context) -> str:
        source = ctx.get_parameter_source(str(self.name))
        return self.variable(ctx) if source is ParameterSource.ENVIRONMENT else self.opts[0]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a choice, the name of a component, a run, or else a path."""
        names = self._field.info.choices or ()
        if self._field.name in KINDS:
            names = tuple(c.name for c in ctx.obj.plugins.registry.of(self._field.name))
        if self._field.name in _OF_RUNS:
            return runs(ctx, self, incomplete)
        if names or self._field.kind is not str:
            return [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file")]

    def _keep(self, ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if ctx.get_parameter_source(str(self.name)) in _SET_BY_USER:
            if self._field.many:
                value = tuple(part for part in value if part != "")
            elif value == "" and self._field.optional:
                value = None
            given(ctx).setdefault(self._section.key, {})[self._field.name] = value
            given_by(ctx)[f"{self._section.key}.{self._field.key}"] = self._given_by(ctx)


class _Value(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """Converts one value; its limits are checked later, like those of values from TOML."""

    def __init__(self, field: OptionField) -> None:
        self._field = field
        self.name = "|".join(field.info.choices or ()) or _METAVARS[field.kind]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The placeholder of the value in the help."""
        return f"[{self.name}]" if self._field.info.choices else self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a value to the option's type."""
        if value == "" and (self._field.optional or self._field.many):
            return value  # unset, and so overrides a value from TOML
        try:
            return self._field.kind(value)
        except ValueError:
            self.fail(f"{value!r} is not {_NUMBERS[self._field.kind]}", param, ctx)


_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
_NUMBERS = {int: "a whole number", float: "a number"}


def _note(field: OptionField) -> str:
    """Default and limits, which follow the help text."""
    info, default = field.info, field.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    elif field.many:
        default = ",".join(map(str, default)) or None
    parts = [] if default is None else [f"default {default}"]
    low = f"from {info.minimum:g}" if info.minimum is not None else ""
    low = f"above {info.above:g}" if info.above is not None else low
    high = f"to {info.maximum:g}" if info.maximum is not None else ""
    parts += [f"{low} {high}".strip()] if low or high else []
    return f"  [{'; '.join(parts)}]" if parts else ""


def _naming_variable(error: OptionError, given_by: Mapping[str, str]) -> OptionError:
    """The error, with the variable that gave the value if one did: nobody typed it."""
    origin = given_by.get(error.option, "--")
    if origin.startswith("--"):
        return error
    problem = f"{error.problem} (from {origin})"
    return OptionError(problem, expected=error.expected, remedy=error.remedy)


def _unknown_flag(flag: str, known: Sequence[str], plugins: Plugins) -> XLMError:
    """The error for an unknown flag: the component to select first, or similar flags."""
    owner = flag.lstrip("-").rpartition(".")[0]
    if owner and not any(name.startswith(f"--{owner}.") for name in known):
        components = (c for kind in KINDS for c in plugins.registry.of(kind))
        kinds = [c.kind for c in components if owner in (c.name, c.full_name)]
        selectable = [kind for kind in kinds if f"--{kind}" in known]
        for kind in (selectable or kinds)[:1]:
            remedy = f"select it: --{kind} {owner}" if selectable else f"remove {flag}"
            return OptionError(
                f"{flag} is an option of the {kind} {owner!r}, which is not selected",
                remedy=f"xlm finetune {owner}" if kind == "task" else remedy,
            )
    # Without the dashes, which would make anything look alike.
    bare = {name.lstrip("-"): name for name in known}
    found = difflib.get_close_matches(flag.lstrip("-"), bare, n=3, cutoff=_ALIKE)
    close = [bare[name] for name in found]
    close += [name for name in known if name.endswith("." + flag.lstrip("-"))]
    return OptionError(
        f"there is no option {flag}",
        expected="an option that --help shows; options of a plugin once it is selected",
        remedy=f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else "",
    )
