"""Commands in README and docs are ones that their command lines accept, and pictures are copies of what these make."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.image import imread

from experiments import ablate, cli
from gru_jax.config import load_config
from tests import lenient
from tests.make_pictures import DRAWN, make_picture
from tests.pages import COMMAND, IMAGE, PAGES, ROOT, Picture, blocks_of, commands_of, pictures_of, writes

BIG = "spoken_digits|listops|multi30k|:speakers"  # files of which a config reads all to be complete
PICTURES = [picture for page in PAGES for picture in pictures_of(page)]


def test_blocks_and_words():
    page = """Text.

    for bias in zeros chrono; do
      python -m experiments.train --config a.py --config.x='1|2' \\
          --workdir runs/$bias-0   # a comment
    done

```python
    python -m experiments.train --config b.py
```

```sh
python -m experiments.train --config c.py && python -m experiments.evaluate
```
"""
    first, second = blocks_of(page)
    assert commands_of(first) == [
        ["experiments.train", "--config", "a.py", "--config.x=1|2", "--workdir", "runs/$bias-0"]
    ]
    assert commands_of(second) == [["experiments.train", "--config", "c.py"]]
    assert writes(first, "runs/chrono-0/plots/x.png")
    assert not writes(first, "runs/chrono-1/plots/x.png")
    assert not writes(first, "runs/chrono-0.png")


def test_needed_blocks_are_those_that_lead_to_a_picture():
    make, other, name, look = (
        f"{COMMAND}train --workdir runs/a-$seed\n",
        f"{COMMAND}train --workdir runs/b\n",
        "runs=runs/a-0,runs/a-1\n",
        f"{COMMAND}flow --workdir $runs --out runs/look\n",
    )
    assert Picture(ROOT, "runs/look/x.png", [make, other, name, look]).needed() == [make, name, look]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.path.stem)
def test_a_picture_says_what_it_is_a_copy_of_and_commands_above_it_make_that(picture):
    assert picture.origin in DRAWN or any(writes(block, picture.origin) for block in picture.blocks), picture.origin
    assert imread(picture.path).std() > 0.01, "blank"


def test_every_picture_is_on_a_page():
    linked = {
        (page.parent / target).resolve() for page in PAGES for target in re.findall(r"\]\(([^)\s]+)", page.read_text())
    }
    assert linked >= set((ROOT / "docs").glob("**/*.png"))
    assert {picture.path for picture in PICTURES} <= linked
    assert IMAGE.search('![A](b.png "runs/c.png")')["origin"] == "runs/c.png"


def test_a_picture_is_made_again(tmp_path):
    (picture,) = (picture for picture in PICTURES if picture.origin == "schedules")
    copy = picture._replace(path=tmp_path / "schedules.png")
    make_picture(copy)
    now, then = imread(copy.path), imread(picture.path)
    assert now.shape == then.shape
    assert np.abs(now - then).mean() < 0.02  # letters differ from version to version


def shown_commands():
    """The commands of all pages that start a run or a study of a config that is there, and say all of it."""
    for page in PAGES:
        for words in (words for block in blocks_of(page.read_text()) for words in commands_of(block)):
            text = " ".join(words)
            config = re.search(r"--config[ =]([^ :]+)", text)
            is_whole = config and (ROOT / config[1]).is_file() and not re.search(r"[$…]|\bRUN\b|\bDIR\b", text)
            if words[0] in ("experiments.train", "experiments.ablate") and is_whole:
                marks = pytest.mark.long if re.search(BIG, text) else ()
                yield pytest.param(words, id=f"{page.name}-{text[12:]}", marks=marks)


@pytest.mark.parametrize("words", list(shown_commands()))
def test_a_command_is_accepted(words, monkeypatch):
    """Its keys and values are ones that the config has, as far as that hangs on no file that is not here."""
    monkeypatch.chdir(ROOT)
    kind, *argv = (word for word in words if not word.startswith("--config.task.data_dir="))
    with lenient.skipped_without_files():
        if kind == "experiments.train":
            flags, overrides = cli.parse(argv, ("config", "workdir", cli.SIGTERM_EXIT, *cli.PROCESSES))
            load_config(flags["config"], overrides)
        else:
            flags, keyed = cli.parse_all(argv, ablate.FLAGS, ablate.PREFIXES)
            ablate.study_from_flags(flags, keyed)
