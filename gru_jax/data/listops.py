"""ListOps: nested operations on lists of digits, as numbers of tokens; read, drawn at random and evaluated."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from gru_jax.data.texts import load_text
from gru_jax.errors import UsageError, closest, listing

DIGITS = 10
OPERATORS = ("[MAX", "[MIN", "[MED", "[SM")
TOKENS = (*map(str, range(DIGITS)), *OPERATORS, "]", "(", ")")
"""By their numbers; the last two, the brackets of the binary tree, may be left out."""
END, OPEN, CLOSE = DIGITS + len(OPERATORS), DIGITS + len(OPERATORS) + 1, DIGITS + len(OPERATORS) + 2
OPERATOR_SHARE, MOST_ARGUMENTS, DEEPEST = 0.25, 5, 20
"""Of the grammar: how often an argument is an operation, and how many arguments and nested lists there are."""
TRIES = 1000  # expressions that are drawn for each one of a length that is wanted, at most
FIRST_TRIES = 100_000  # before that is said
_NUMBERS = {token: number for number, token in enumerate(TOKENS)}
_LINE = re.compile(r"([0-9])\t(.+)")


class Expression(NamedTuple):
    """An expression.

    Attributes:
        tokens: their numbers, without round brackets; a number is a byte.
        value: the digit that it comes to.
    """

    tokens: bytes
    value: int


def _median(values: list[int]) -> int:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


_FUNCTIONS: Sequence[Callable[[list[int]], int]] = (max, min, _median, lambda values: sum(values) % DIGITS)


def with_brackets(tokens: bytes) -> bytes:
    """The tokens of an expression with the round brackets of its binary tree, 3 T - 2 of them where it has T.

    Operator and first argument make a pair, this and the second argument another, and so on to the end.

    Examples:
        >>> from gru_jax.data.listops import TOKENS, parse_expression, with_brackets
        >>> " ".join(TOKENS[number] for number in with_brackets(parse_expression("[SM 6 5 ]").tokens))
        '( ( ( [SM 6 ) 5 ) ] )'
    """
    parts, pairs = [bytearray()], list[int]()  # of the operations that are begun; each ends with a pair of its own
    for token in tokens:
        if DIGITS <= token < END:
            parts.append(bytearray([token]))
            pairs.append(1)
            continue
        if token == END:
            operation = bytes([OPEN]) * pairs.pop() + parts.pop() + bytes([END, CLOSE])
            parts[-1] += operation
        else:
            parts[-1].append(token)
        if pairs:
            parts[-1].append(CLOSE)
            pairs[-1] += 1
    return bytes(parts[0])


def parse_expression(text: str, where: str = "expression") -> Expression:
    """An expression as people write it, tokens separated by blanks, with round brackets or without.

    Args:
        text: it.
        where: it stands, for people.

    Raises:
        UsageError: it is none.

    Examples:
        >>> from gru_jax.data.listops import parse_expression
        >>> parse_expression("[MAX 2 [MED 5 9 7 ] 1 ]").value
        7
        >>> parse_expression("[MAX 2 [MED 5 9 7 ] 1")
        Traceback (most recent call last):
        gru_jax.errors.UsageError: expression: ends within an operation; needed is ] after its arguments
    """
    numbers = bytearray()
    for place, word in enumerate(text.split(), start=1):
        if word not in _NUMBERS:
            raise UsageError(
                f"{where}: token {place} is {word[:20]!r}; allowed are {listing(TOKENS)}{closest(word, TOKENS)}"
            )
        numbers.append(_NUMBERS[word])
    tokens = bytes(number for number in numbers if number not in (OPEN, CLOSE))
    value = _evaluate(tokens, where)
    if bytes(numbers) not in (tokens, with_brackets(tokens)):
        raise UsageError(f"{where}: its round brackets are not those of its binary tree; allowed are these, or none")
    return Expression(tokens, value)


def _evaluate(tokens: bytes, where: str) -> int:
    """What an expression comes to.

    Raises:
        UsageError: it is none.
    """
    operators, arguments, value = list[int](), list[list[int]](), None
    for place, token in enumerate(tokens, start=1):
        if value is not None:
            raise UsageError(f"{where}: goes on after its end, with {TOKENS[token]!r}")
        if DIGITS <= token < END:
            operators.append(token)
            arguments.append([])
            continue
        if token == END and not (operators and arguments[-1]):
            why = "without arguments" if operators else "that was not begun"
            raise UsageError(f"{where}: ] ends an operation {why}, as token {place} without round brackets")
        value = _FUNCTIONS[operators.pop() - DIGITS](arguments.pop()) if token == END else token
        if operators:
            arguments[-1].append(value)
            value = None
    if value is None:
        why = "ends within an operation; needed is ] after its arguments" if operators else "empty"
        raise UsageError(f"{where}: {why}")
    return value


def load_expressions(path: Path) -> list[Expression]:
    """The expressions of a file, one a line after its value and a tab.

    Raises:
        UsageError: a line is of another kind, or its value is wrong.
    """
    expressions = []
    for number, line in enumerate(load_text(path).rstrip("\n").split("\n"), start=1):
        where, match = f"{path}: line {number}", _LINE.fullmatch(line)
        if match is None:
            raise UsageError(f"{where}: begins with {line[:20]!r}; needed are a digit, a tab and an expression")
        expressions.append(parse_expression(match[2], where))
        if expressions[-1].value != int(match[1]):
            raise UsageError(f"{where}: says {match[1]}; the expression comes to {expressions[-1].value}")
    return expressions


def draw_expression(draw: Callable[[], float], longest: int) -> Expression | None:
    """An expression of the published grammar; None for one of more tokens than `longest`.

    An argument is an operation in a quarter of all cases, of 2 to 5 arguments, and else a digit; the lists are nested
    up to 20 deep, digits counted, and all operators and digits are equally frequent. Nangia and Bowman 2018,
    arXiv:1804.06028.

    Args:
        draw: gives numbers from 0 to 1.
        longest: greatest number of tokens, round brackets not counted.

    Examples:
        >>> import random
        >>> from gru_jax.data.listops import TOKENS, draw_expression
        >>> drawn = draw_expression(random.Random(3).random, 50)
        >>> " ".join(TOKENS[number] for number in drawn.tokens), drawn.value
        ('[MED 6 [MAX 2 4 4 1 8 ] 7 ]', 7)
    """
    tokens, operators = bytearray(), list[int]()
    arguments, wanted = list[list[int]](), list[int]()  # of the operations that are begun: those so far, and how many
    while len(tokens) + len(operators) <= longest:
        if len(operators) + 1 < DEEPEST and draw() <= OPERATOR_SHARE:
            tokens.append(DIGITS + int(draw() * len(OPERATORS)))
            operators.append(tokens[-1])
            arguments.append([])
            wanted.append(2 + int(draw() * (MOST_ARGUMENTS - 1)))
            continue
        value = int(draw() * DIGITS)
        tokens.append(value)
        while operators:
            arguments[-1].append(value)
            if len(arguments[-1]) < wanted[-1]:
                break
            value = _FUNCTIONS[operators.pop() - DIGITS](arguments.pop())
            wanted.pop()
            tokens.append(END)
        if not operators:
            return Expression(bytes(tokens), value) if len(tokens) <= longest else None
    return None


def draw_expressions(
    count: int, seed: int, shortest: int, longest: int, without: Collection[bytes] = ()
) -> list[Expression]:
    """Different expressions of the published grammar, of so many tokens, round brackets not counted.

    Args:
        count: how many.
        seed: draws them, the same on every machine.
        shortest: least number of tokens.
        longest: greatest number of tokens.
        without: the tokens of those that are left out.

    Raises:
        UsageError: there are hardly so many.

    Examples:
        >>> from gru_jax.data.listops import draw_expressions
        >>> drawn = draw_expressions(3, 0, 10, 20)
        >>> len(set(drawn)), all(10 <= len(expression.tokens) <= 20 for expression in drawn)
        (3, True)
    """
    generator, known, drawn, tries = random.Random(seed), set(without), list[Expression](), 0
    while len(drawn) < count:
        if tries >= FIRST_TRIES and tries > TRIES * len(drawn):
            raise UsageError(
                f"of {tries:,} expressions that were drawn {len(drawn):,} are of {shortest} to {longest} tokens, round "
                f"brackets not counted, and new; needed are {count:,}, of lengths that are not so rare"
            )
        tries += 1
        expression = draw_expression(generator.random, longest)
        if expression is None or len(expression.tokens) < shortest or expression.tokens in known:
            continue
        known.add(expression.tokens)
        drawn.append(expression)
    return drawn
