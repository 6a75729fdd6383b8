"""Reading single values from the environment with errors that name the variable."""

from __future__ import annotations

from collections.abc import Mapping


class ConfigurationError(Exception):
    """The environment does not describe a working process; the message says what to change."""


def number(
    environ: Mapping[str, str], name: str, *, default: float, low: float, high: float, whole: bool = False
) -> float:
    """Return the number in variable `name`, which must lie between `low` and `high`."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ConfigurationError(f"{name} must be {kind} from {low:g} to {high:g}, not {text!r}.")
    return value


def choice(environ: Mapping[str, str], name: str, allowed: frozenset[str]) -> str:
    """Return the value of variable `name`, which must be empty or one of `allowed`."""
    text = environ.get(name, "").strip()
    if text and text not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(sorted(allowed))}, not {text!r}.")
    return text
