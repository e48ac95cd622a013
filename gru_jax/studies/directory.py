"""The directory of a study: what it is, its members, and the waves that they are trained in."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gru_jax.config import differences, say_what_differs
from gru_jax.config.checkpoint_names import CHECKPOINTS
from gru_jax.errors import ArgumentError, UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runtime.files import Json, read_json, refuse_links, write_json
from gru_jax.runtime.locks import LOCK
from gru_jax.studies.study import check_members, read_study_file

STUDY_FILE, MEMBERS, WAVES, WAVE_FILE, QUARANTINE = "study.json", "members", "waves", "wave.json", "aside"
logger = logging.getLogger(__name__)
_WAVE = re.compile(r"\d+-\d{4,}")


class StudyDir:
    """The directory of a study.

    Args:
        path: the directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop_mark = path / "asked_to_end"
        """A file that is there while every process is to end."""

    def member(self, name: str) -> Path:
        """The run directory of a member."""
        return self.path / MEMBERS / name

    def is_done(self, name: str) -> bool:
        """Whether a member has come to its end.

        Raises:
            UsageError: its directory is not whole.
        """
        path = self.member(name)
        if path.exists() and not RunDir(path).summary.is_file():
            raise UsageError(f"{path}: damaged, it has no summary.json; move it away to train this member again")
        return path.exists()

    def inspect(self, base: Mapping[str, Any], members: Mapping[str, Any]) -> None:
        """Make the directory, if it is not there, for a study of this base config and these members.

        Raises:
            UsageError: it belongs to another study or to something else, or cannot be used.
        """
        path = self.path / STUDY_FILE
        try:
            if path.exists():
                # What is varied does not belong to the base: only the rest has to be the same.
                before = read_study_file(path)
                varied = {
                    key
                    for listed in (members, before["members"])
                    for member in listed.values()
                    for key in member["settings"]
                }
                changed = [text for text in differences(before["config"], base) if text.split(" ")[0] not in varied]
                if changed:
                    whose = say_what_differs(changed, "a study of another base")
                    raise ArgumentError(f"workdir={self.path}: belongs to {whose}")
            elif others := sorted(p.name for p in self.path.glob("*") if p.name not in (f"{STUDY_FILE}.tmp", LOCK)):
                raise ArgumentError(
                    f"workdir={self.path}: not a study's directory, it holds {others[0]} and no {STUDY_FILE}; "
                    "allowed is a new or empty directory, or one of an earlier study"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / MEMBERS, self.path / WAVES):
                refuse_links(folder)
        except OSError as error:
            raise ArgumentError(f"workdir={self.path}: cannot be used ({error.strerror})") from error

    def start(self, described: Mapping[str, Any]) -> None:
        """Write what the study is, and clear away waves that came to nothing.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            write_json(self.path / STUDY_FILE, described)
            (self.path / MEMBERS).mkdir(exist_ok=True)
            self.stop_mark.unlink(missing_ok=True)
            for wave in self.waves():
                begun = (wave / WAVE_FILE).exists()
                if begun and not all(self.is_done(name) for name in read_wave(wave)):
                    continue  # to be gone on with; the others were killed before they began, or after they ended
                if not begun and any((wave / CHECKPOINTS).rglob("*")):
                    kept = self._keep(wave, wave.name)
                    message = "%s: damaged, it has no %s; kept as %s, its members begin anew"
                    logger.warning(message, wave, WAVE_FILE, kept)
                else:
                    self.remove(wave)
        except OSError as error:
            raise ArgumentError(f"workdir={self.path}: cannot be written ({error.strerror})") from error

    def waves(self) -> list[Path]:
        """The directories of all waves."""
        return sorted(path for path in (self.path / WAVES).glob("*") if _WAVE.fullmatch(path.name))

    def new_wave(self, process: int, configs: Mapping[str, Any]) -> Path:
        """A directory for a wave of this process, with these configs by member."""
        taken = [int(path.name.split("-")[1]) for path in self.waves() if path.name.startswith(f"{process}-")]
        path = self.path / WAVES / f"{process}-{max(taken, default=-1) + 1:04d}"
        path.mkdir(parents=True)
        write_json(path / WAVE_FILE, configs)
        return path

    def remove(self, wave: Path) -> None:
        """Remove a wave that has ended, but for damaged checkpoints that are kept."""
        if (quarantine := wave / CHECKPOINTS / QUARANTINE).is_dir():
            self._keep(quarantine, wave.name)
        shutil.rmtree(wave)

    def _keep(self, path: Path, name: str) -> Path:
        """Put something out of use, and return where it is now."""
        folder = self.path / QUARANTINE
        folder.mkdir(exist_ok=True)
        return path.rename(folder / f"{name}-{sum(1 for _ in folder.iterdir())}")


def read_wave(wave: Path) -> Json:
    """By id, the configs of a wave's members.

    Raises:
        UsageError: it is damaged.
    """
    path = wave / WAVE_FILE
    return check_members(path, read_json(path))
