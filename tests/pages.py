"""The pages of the docs as their readers use them: commands in blocks, and the pictures that these make."""

from __future__ import annotations

import itertools
import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
COMMAND = "python -m experiments."
OUTPUTS = ("--workdir", "--out", "--output")  # flags of a command that say where its files go
IMAGE = re.compile(r'!\[[^\]]*\]\((?P<path>[^)\s]+)(?: "(?P<origin>[^"]*)")?\)')


class Picture(NamedTuple):
    """A picture on a page.

    Attributes:
        path: of the file.
        origin: the file that it is a copy of, as its title says; empty without.
        blocks: of the commands above it on the page.
    """

    path: Path
    origin: str
    blocks: list[str]

    def needed(self) -> list[str]:
        """Those of the blocks that make what it is a copy of, and before them what these read."""
        wanted, names, needed = [self.origin], list[str](), list[str]()
        for block in reversed(self.blocks):
            if any(writes(block, path) for path in wanted) or any(re.search(rf"\b{n}=", block) for n in names):
                needed.insert(0, block)
                wanted += re.findall(r"runs/[^\s,'\"]+", block)
                names += re.findall(r"\$\{?(\w+)", block)
        return needed


def text_of(page: Path) -> str:
    """A page without code in its lines, which is no picture and no link."""
    return re.sub(r"`[^`\n]+`", "", page.read_text())


def blocks_of(text: str) -> list[str]:
    """The blocks of commands, indented or fenced as `sh`; other code in fences is none."""
    text = re.sub(r"^```sh\n(.*?)^```$", lambda fence: textwrap.indent(fence[1], "    "), text, flags=re.S | re.M)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    blocks = re.findall(r"(?:^    \S.*\n(?:^ {4,}.*\n)*)", text + "\n", flags=re.M)
    return [re.sub(r"^    ", "", block, flags=re.M) for block in blocks if COMMAND in block]


def pictures_of(page: Path) -> list[Picture]:
    """The pictures of a page that are files of the project."""
    text = text_of(page)
    return [
        Picture((page.parent / match["path"]).resolve(), match["origin"] or "", blocks_of(text[: match.start()]))
        for match in IMAGE.finditer(text)
        if "://" not in match["path"]
    ]


def commands_of(block: str) -> list[list[str]]:
    """The words of each command of a block, from `experiments.…` to a comment, a redirection or a semicolon."""
    lines = block.replace("\\\n", " ").splitlines()
    return [_words(line[line.index(COMMAND) :])[2:] for line in lines if COMMAND in line]


def _words(line: str) -> list[str]:
    """The words of a line of the shell up to the end of its first command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|<>&")
    lexer.whitespace_split = True
    lexer.commenters = ""  # a # may stand in a word
    return list(itertools.takewhile(lambda word: word[0] not in ";|<>&#", lexer))


def writes(block: str, path: str) -> bool:
    """Whether a command of a block writes into the directory that a path lies in, variables of the shell being open."""
    for words in commands_of(block):
        for flag, value in itertools.pairwise(words):
            pattern = re.sub(r"\\\$(?:\\\{.*?\\\}|\w+)", ".+", re.escape(value))
            if flag in OUTPUTS and re.fullmatch(f"{pattern}(/.*)?", path):
                return True
    return False
