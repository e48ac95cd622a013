"""Text files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gru_jax.errors import UsageError


def load_text(path: Path) -> str:
    r"""The text of a file in UTF-8, without a byte order mark; line breaks become "\n".

    Raises:
        UsageError: it is missing, empty, or in another encoding.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.data.texts import load_text
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "a.txt")
        >>> _ = path.write_bytes("é\r\n".encode())
        >>> load_text(path)
        'é\n'
        >>> folder.cleanup()
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: byte {error.start} is not UTF-8 ({error.reason}); allowed are texts in UTF-8"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if not text:
        raise UsageError(f"{path}: empty; needed is a text")
    return text.replace("\r\n", "\n")


def split_text(text: str, fractions: Sequence[float]) -> list[str]:
    """A text cut into parts that have these fractions of its characters, what is left over going to the first.

    Examples:
        >>> from gru_jax.data.texts import split_text
        >>> split_text("abcdefghij", [0.8, 0.1, 0.1])
        ['abcdefgh', 'i', 'j']
    """
    sizes = [int(len(text) * fraction) for fraction in fractions[1:]]
    ends = [len(text) - sum(sizes[i:]) for i in range(len(sizes))] + [len(text)]
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
