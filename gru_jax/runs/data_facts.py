"""What a run keeps of its data, so that its network can be used without them."""

from __future__ import annotations

from gru_jax.config import Config, changed_data
from gru_jax.config.schema import DATA
from gru_jax.errors import UsageError, listing
from gru_jax.runs.directory import RunDir
from gru_jax.runtime.files import read_json, write_json
from gru_jax.tasks.base import FromFiles
from gru_jax.tasks.facts import DataFacts, Facts
from gru_jax.tasks.files import Files
from gru_jax.tasks.text_facts import text_facts_of

FACTS_FILE = "data.json"


def keep_facts(rundir: RunDir, config: Config) -> None:
    """Write what is known of the data into the directory of a run, if its task knows anything of files."""
    facts = config.task.facts if isinstance(config.task, FromFiles) else None
    if facts is not None:
        write_json(rundir.path / FACTS_FILE, facts.to_json())


def check_same_data(rundir: RunDir, config: Config) -> None:
    """Refuse data that are not those which a run was trained on.

    Raises:
        UsageError: a file has another content, or is not there.
    """
    here = config.to_dict()
    if changed := changed_data(read_json(rundir.config), here):
        names = [name if name in here.get(DATA, {}) else f"{name} (missing)" for name in changed]
        raise UsageError(f"{rundir.path}: was trained on other data than there are now, of {', '.join(names)}")
    check_same_inputs(rundir, config)


def check_same_inputs(rundir: RunDir, config: Config) -> None:
    """Refuse columns of tables that are other than those which the network of a run reads.

    Raises:
        UsageError: they are, as of runs of earlier versions that read the target too.
    """
    stored, task = read_facts(rundir), config.task
    if not isinstance(stored, DataFacts) or not isinstance(task, Files):
        return
    here = task.features_of_files()
    if here != stored.features:
        raise UsageError(
            f"{rundir.path}: its network reads {listing(stored.features)}, and the inputs are {listing(here)} now; "
            "needed are the same, of which none is a target of its own row"
        )


def read_facts(rundir: RunDir) -> Facts | None:
    """What `keep_facts` wrote; None where it wrote nothing.

    Raises:
        UsageError: it is damaged.
    """
    path = rundir.path / FACTS_FILE
    if not path.exists():
        return None
    try:
        content = read_json(path)
        kind = text_facts_of(content) or DataFacts
        return kind.from_json(content)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
