"""Write `long.txt`, the tests that take more than some seconds: `python -m tests.list_long FILE SECONDS`.

FILE is what `pytest -n 2 -m 'not slow' --durations=0 --durations-min=0.1` printed. What a test shares with others, and
has to make first, does not count: it would be the next one's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("long.txt")
DURATION = re.compile(r"\s*([\d.]+)s call\s+(\S.*)")


def long_tests(printed: str, seconds: float) -> list[str]:
    """The names of the tests that took longer, in order."""
    lines = (DURATION.match(line) for line in printed.splitlines())
    return sorted(match[2].strip() for match in lines if match and float(match[1]) > seconds)


if __name__ == "__main__":
    PAGE.write_text("".join(f"{name}\n" for name in long_tests(Path(sys.argv[1]).read_text(), float(sys.argv[2]))))
