# SPDX-License-Identifier: Apache-2.0
"""Reads the values of a TOML table, each with its type, and tells which one is wrong."""

from collections.abc import Sequence
from typing import Any, TypeVar

from afternorm.errors import ConfigError

T = TypeVar("T")


class Section:
    """One table of a file.

    Parameters
    ----------
    place : what messages call it: the file, and the table in it.
    table : its values by key.

    Raises
    ------
    ConfigError
        By the methods, if a value is missing or wrong; the message names key and remedy.
    """

    def __init__(self, place: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ConfigError(f"{place} must be a table, not {table!r}")
        self.place = place
        self.table: dict[str, Any] = table
        self._known: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self.table

    def raw(self, key: str, default: Any = None) -> Any:
        """A value of any type, or `default` if there is none."""
        self._known.append(key)
        return self.table.get(key, default)

    def integer(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """An integer of `low` or more; it must be there if there is no default."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            self.fail(key, f"must be an integer of {low} or more, not {value!r}")
        return int(value)

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"must be true or false, not {value!r}")
        return bool(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not empty; it must be there if there is no default."""
        value = self._value(key, default)
        if not isinstance(value, str) or not value:
            self.fail(key, f"must be a text, not {value!r}")
        return str(value)

    def choice(self, key: str, options: Sequence[T], default: T | None = None) -> T:
        """One of `options`; it must be there if there is no default."""
        return self._one_of(key, self._value(key, default), options)

    def choices(self, key: str, options: Sequence[T], default: Sequence[T]) -> tuple[T, ...]:
        """A list of some of `options`, each once; or a single one."""
        return tuple(self._one_of(key, v, options) for v in self.list(key, list(default)))

    def list(self, key: str, default: Any = None) -> list[Any]:
        """A list that is not empty, of different values; one value stands for a list of it."""
        value = self._value(key, default)
        values = value if isinstance(value, list) else [value]
        if not values:
            self.fail(key, "is empty: name a value, or leave the key out")
        different: list[Any] = []
        for one in values:
            if not any(type(one) is type(other) and one == other for other in different):
                different.append(one)
        return different

    def fail(self, key: str, message: str) -> None:
        """Raise a ConfigError about the value of `key`."""
        raise ConfigError(f"{self.place}: {key} {message}")

    def finish(self) -> None:
        """Raise a ConfigError if there is a key that nobody has asked for."""
        if unknown := [key for key in self.table if key not in self._known]:
            known = ", ".join(dict.fromkeys(self._known))
            raise ConfigError(f"{self.place}: unknown key {unknown[0]!r}; known are {known}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.raw(key, default)
        if value is None:
            self.fail(key, "is missing: it has no default")
        return value

    def _one_of(self, key: str, value: Any, options: Sequence[T]) -> T:
        for option in options:
            if option == value:
                return option
        names = ", ".join(map(str, options))
        raise ConfigError(f"{self.place}: {key} has {value!r}; there are {names}")
