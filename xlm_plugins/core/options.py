"""Options: plain dataclasses whose fields carry their own help and limits.

A plugin (and each part of the core) declares its settings as a frozen dataclass of
``option(...)`` fields.  Command-line flags, TOML keys, checks and documentation all come from
this declaration, so each help text lives in one place.  Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xlm_plugins.core.errors import OptionError, raise_together

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class OptionInfo:
    """What a field declares beyond its type and default."""

    help: str
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    comma: bool = False
    path: bool = False
    group: str = ""
    advanced: bool = False


@dataclass(frozen=True)
class OptionField:
    """One option, resolved: its name, the types it accepts, its default and its limits.

    ``kind`` is bool, int, float or str; ``optional`` means that None is allowed (an empty flag
    value means None); ``many`` means that the value is a tuple of ``kind``.
    """

    name: str
    kind: type
    optional: bool
    many: bool
    default: Any
    info: OptionInfo

    @property
    def key(self) -> str:
        """The name as flags and TOML spell it: ``mask-prob``; ``from_`` is ``from``."""
        return self.name.rstrip("_").replace("_", "-")


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    comma: bool = False,
    path: bool = False,
    group: str = "",
    advanced: bool = False,
) -> Any:
    """Declare one option of an options dataclass.

    :param default: the value if none is given.
    :param help: one sentence for ``--help`` and the docs; give the unit.
    :param choices: the allowed strings.
    :param minimum: the smallest allowed value.
    :param maximum: the largest allowed value.
    :param above: the value must be strictly greater than this.
    :param comma: several values may also be written as one, separated by commas.
    :param path: the value is a path, or ``NAME=PATH``; config.toml of a run has it absolute.
    :param group: a heading of its own in the help, which options of one group share.
    :param advanced: shown by ``--help-all`` only.
    """
    choices = tuple(choices) if choices else None
    info = OptionInfo(help, choices, minimum, maximum, above, comma, path, group, advanced)
    return dataclasses.field(default=default, metadata={"xlm": info})


def fields_of(options: type) -> list[OptionField]:
    """The options that a dataclass declares, in order: a class's own before inherited ones.

    :raises TypeError: not a frozen dataclass of options, a type that flags and TOML cannot
        express, or two options with one flag (mistakes of the plugin's author, not of the user).
    """
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        name = getattr(options, "__name__", repr(options))
        raise TypeError(f"{name} is not a dataclass of options")
    hints = typing.get_type_hints(options)
    found = []
    own = {name: place for place, name in enumerate(options.__annotations__)}
    declared = dataclasses.fields(options)
    for field in sorted(declared, key=lambda field: own.get(field.name, len(own))):
        info = field.metadata.get("xlm")
        if not isinstance(info, OptionInfo):
            raise TypeError(f"{options.__name__}.{field.name} must be declared with option(...)")
        kind, optional, many = _resolve(hints[field.name], f"{options.__name__}.{field.name}")
        found.append(OptionField(field.name, kind, optional, many, field.default, info))
    _check_declaration(options, found)
    return found


def _check_declaration(options: type, fields: Sequence[OptionField]) -> None:
    if not options.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"{options.__name__} must be declared with dataclass(frozen=True)")
    keys = {field.key for field in fields}
    for field in fields:  # a switch has two flags, --x and --no-x
        if field.kind is bool and f"no-{field.key}" in keys:
            where = f"{options.__name__}.no_{field.name}"
            raise TypeError(f"{where} clashes with the flag that turns {field.name} off")


def build(options: type[OptionsT], values: Mapping[str, Any], owner: str) -> OptionsT:
    """Make an options object from TOML or flag values, and check each of them.

    :param values: by option name, with dashes or underscores.
    :param owner: whose options these are, for error messages: ``tlm``, ``train``.
    :raises OptionError: unknown keys, wrong types and values outside their limits, all of them.
    """
    by_name = {field.name.rstrip("_"): field for field in fields_of(options)}
    checked, errors = {}, []
    for key, value in values.items():
        try:
            field = _named(by_name, key, owner)
            checked[field.name] = _checked(field, value, owner)
        except OptionError as error:
            errors.append(error)
    raise_together(errors)
    return options(**checked)


def _named(by_name: Mapping[str, OptionField], key: str, owner: str) -> OptionField:
    name = key.replace("-", "_").rstrip("_")
    if name not in by_name:
        close = difflib.get_close_matches(name, by_name, n=1)
        raise OptionError(
            f"{owner} has no option {key!r}",
            expected="one of " + ", ".join(sorted(f.key for f in by_name.values())),
            remedy=f"did you mean {by_name[close[0]].key!r}?" if close else "",
        )
    return by_name[name]


def to_mapping(options: Any) -> dict[str, Any]:
    """An options object as TOML: dashes in names, tuples as lists, None left out."""
    mapping = {}
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        if value is not None:
            mapping[field.key] = list(value) if field.many else value
    return mapping


def with_absolute_paths(options: OptionsT) -> OptionsT:
    """The options with absolute paths, which are valid from any folder."""
    changed = {}
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        if field.info.path and value:
            changed[field.name] = tuple(map(_absolute, value)) if field.many else _absolute(value)
    return dataclasses.replace(options, **changed)  # type: ignore[type-var]


def _absolute(path: str) -> str:
    match = re.match(r"\w+=", path)  # a path may contain an equals sign
    name = match[0] if match else ""
    return f"{name}{Path(path.removeprefix(name)).resolve()}"


def _resolve(hint: Any, where: str) -> tuple[type, bool, bool]:
    optional = many = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        hint = members[0] if len(members) == 1 else None
    if typing.get_origin(hint) is tuple:
        many = True
        hint = typing.get_args(hint)[0]
    if hint not in (bool, int, float, str):
        raise TypeError(f"{where}: an option is a bool, int, float, str, or a tuple of these")
    return hint, optional, many


def _checked(field: OptionField, value: Any, owner: str) -> Any:
    if value is None and field.optional:
        return None
    if field.many:
        items = value if isinstance(value, list | tuple) else [value]
        if field.info.comma:
            items = [part for item in items for part in str(item).split(",") if part]
        return tuple(_checked_one(field, item, owner) for item in items)
    return _checked_one(field, value, owner)


def _checked_one(field: OptionField, value: Any, owner: str) -> Any:
    name = f"{owner}.{field.key}"
    if field.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not field.kind:
        expected = f"a value of type {field.kind.__name__}"
        raise OptionError(f"{name} = {value!r}", expected=expected, option=name)
    info = field.info
    if info.choices is not None and value not in info.choices:
        close = difflib.get_close_matches(str(value), info.choices, n=1)
        raise OptionError(
            f"{name} = {value!r}",
            expected="one of " + ", ".join(info.choices),
            remedy=f"did you mean {close[0]!r}?" if close else "",
            option=name,
        )
    number: Any = value
    if field.kind is float and not math.isfinite(number):
        raise OptionError(f"{name} = {value!r}", expected="a finite number", option=name)
    limits = (
        (info.minimum is not None and number < info.minimum, f"at least {info.minimum}"),
        (info.maximum is not None and number > info.maximum, f"at most {info.maximum}"),
        (info.above is not None and number <= info.above, f"more than {info.above}"),
    )
    for broken, expected in limits:
        if broken:
            raise OptionError(f"{name} = {value!r}", expected=expected, option=name)
    return value
