"""Other values for options, derived from their declarations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.options import OptionField, build, fields_of, to_mapping


def changed(options: Any, owner: str) -> Any:
    """The same options, each with a different value if possible.

    Values stay within their limits, and values that the options class refuses in combination with
    the others are not used.

    :param owner: the component's name, for errors.
    """
    values = to_mapping(options)
    for field in fields_of(type(options)):
        for value in _others(field, getattr(options, field.name)):
            try:
                options = build(type(options), {**values, field.key: value}, owner)
            except OptionError:
                continue
            values[field.key] = value
            break
    return options


def as_flags(options: Any, prefix: str) -> list[str]:
    """The flags with which a user sets these options.

    :param prefix: of each flag's name, such as ``pkm.``.
    """
    flags = []
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        if value is None:
            continue  # the default, for which there is no flag
        for part in value if field.many else (value,):
            if field.kind is bool:
                flags.append(f"--{prefix}{'' if part else 'no-'}{field.key}")
            else:
                flags.append(f"--{prefix}{field.key}={part}")
    return flags


def _others(field: OptionField, value: Any) -> Iterator[Any]:
    """Values that a field may have, apart from its limits; the best first."""
    if field.many:
        singles = [one for one in _singles(field, None) if (one,) != value]
        yield from ([*singles[:2]], singles[:1])
    else:
        yield from (one for one in _singles(field, value) if one != value)


def _singles(field: OptionField, value: Any) -> list[Any]:
    if field.kind is bool:
        return [not value]
    if field.kind is str:
        return list(field.info.choices or ("other", "another"))
    least, most = field.info.minimum, field.info.maximum
    bounds = [bound for bound in (least, field.info.above, most) if bound is not None]
    middle = value if value is not None else (sum(bounds) / len(bounds) if bounds else 1)
    near: list[float] = [middle * 2, middle + 1, middle - 1, middle / 2, middle + 0.1, *bounds]
    return [field.kind(number) for number in near]
