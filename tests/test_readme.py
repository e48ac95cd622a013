"""The README's Python runs, and its commands are two lines that a machine can take literally."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.S | re.M)


def test_python_blocks_run(capsys):
    namespace: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["out"].hs.shape == (8, 200, 64)
    assert "steps" in capsys.readouterr().out


def test_two_commands():
    commands = blocks("sh")
    assert [c.count("\n") for c in commands] == [1, 1]
    assert "configs/quickstart.py" in commands[0]
    assert "pytest" in commands[1]
