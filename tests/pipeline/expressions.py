"""The part of GitHub's expression language that our workflows use, so that a test can run them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_-]*)"
    r"|(?P<mark>==|!=|>=|<=|&&|\|\||[()\[\].,!<>]))"
)
_HOLE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
Functions = Mapping[str, Callable[..., Any]]


def fill(value: Any, context: Mapping[str, Any], functions: Functions) -> Any:
    """A YAML value with every `${{ }}` in it evaluated; one that is nothing else keeps its type."""
    if isinstance(value, Mapping):
        return {key: fill(item, context, functions) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, context, functions) for item in value]
    if not isinstance(value, str):
        return value
    whole = _HOLE.fullmatch(value.strip())
    if whole and "}}" not in whole[1]:
        return evaluate(whole[1], context, functions)
    return _HOLE.sub(lambda match: text(evaluate(match[1], context, functions)), value)


def text(value: Any) -> str:
    """A value as it is written into a string."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def evaluate(expression: str, context: Mapping[str, Any], functions: Functions) -> Any:
    """The value of an expression; raises `ValueError` for what is not understood, so that no condition is guessed."""
    tokens = []
    position = 0
    while expression[position:].strip():
        match = _TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"cannot read {expression[position:]!r}")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        position = match.end()
    return _Reader(tokens, context, functions).whole()


_KNOWN: Functions = {
    "fromJSON": json.loads,
    "contains": lambda where, what: what in where,
}


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]], context: Mapping[str, Any], functions: Functions) -> None:
        self.tokens, self.context, self.functions = tokens, context, functions

    def whole(self) -> Any:
        value = self.either()
        if self.tokens:
            raise ValueError(f"something follows: {self.tokens}")
        return value

    def take(self, *marks: str) -> str:
        if self.tokens and self.tokens[0][0] == "mark" and self.tokens[0][1] in marks:
            return self.tokens.pop(0)[1]
        return ""

    def either(self) -> Any:
        value = self.both()
        while self.take("||"):
            other = self.both()
            value = value or other
        return value

    def both(self) -> Any:
        value = self.compared()
        while self.take("&&"):
            other = self.compared()
            value = other if value else value
        return value

    def compared(self) -> Any:
        value = self.single()
        while mark := self.take("==", "!=", ">", "<", ">=", "<="):
            other = self.single()
            if mark in ("==", "!="):
                value = (_plain(value) == _plain(other)) == (mark == "==")
            else:
                left, right = float(value), float(other)
                value = {">": left > right, "<": left < right, ">=": left >= right, "<=": left <= right}[mark]
        return value

    def single(self) -> Any:
        if self.take("!"):
            return not self.single()
        if self.take("("):
            value = self.either()
            self.need(")")
            return value
        kind, word = self.tokens.pop(0)
        if kind == "text":
            return word[1:-1].replace("''", "'")
        if kind == "number":
            return float(word) if "." in word else int(word)
        if kind != "name":
            raise ValueError(f"unexpected {word}")
        if word in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[word]
        return self.path(self.call(word) if self.take("(") else self.context[word])

    def call(self, name: str) -> Any:
        arguments: list[Any] = []
        while not self.take(")"):
            arguments.append(self.either())
            self.take(",")
        return self.functions[name](*arguments) if name in self.functions else _KNOWN[name](*arguments)

    def path(self, value: Any) -> Any:
        while True:
            if self.take("."):
                key = self.tokens.pop(0)[1]
                value = value.get(key) if isinstance(value, Mapping) else None
            elif self.take("["):
                index = self.either()
                self.need("]")
                value = value[index]
            else:
                return value

    def need(self, mark: str) -> None:
        if not self.take(mark):
            raise ValueError(f"{mark} is missing")


def _plain(value: Any) -> Any:
    """Texts are compared without case; nothing is an empty text."""
    return "" if value is None else value.lower() if isinstance(value, str) else value
