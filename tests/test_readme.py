"""The Python in README and docs runs, and README's commands are two lines that a machine can take literally."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import lenient, pages
from tests.test_examples import MODULES

ROOT = Path(__file__).parent.parent
PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if "```python" in page.read_text()]


def blocks(language, page=ROOT / "README.md"):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def test_python_blocks_run(capsys):
    namespace: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["out"].hs.shape == (8, 200, 64)
    assert "steps" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_runs(page, unchecked_types):
    namespace: dict = {}
    with lenient.jax_as_users_have_it():  # as it is for users, and as optax needs it
        for block in blocks("python", page):
            exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", pages.text_of(page)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_public_module_and_every_page_is_on_the_site():
    described = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    for module in set(MODULES) - {"gru_jax.unroll"}:  # hidden by its function, which is described
        assert f"::: {module}\n" in described, module
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in ROOT.glob("docs/**/*.md"):
        assert f": {page.relative_to(ROOT / 'docs')}\n" in navigation, page


def test_two_commands():
    commands = blocks("sh")
    assert [c.count("\n") for c in commands] == [1, 1]
    assert "configs/quickstart.py" in commands[0]
    assert "pytest" in commands[1]
