"""What several commands share: configuration files, the console, tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", help="Configuration on top of config/config.yaml."),
]


def merged_configuration(configfiles: Iterable[Path], command: str) -> dict[str, Any]:
    """Return config/config.yaml with ``configfiles`` on top, not checked yet, for ``command``.

    Raises:
        ConfigError: a file is missing, is not YAML, or holds no sections.
    """
    import yaml

    from threedrs.errors import ConfigError

    config: dict[str, Any] = {}
    for path in [Path("config/config.yaml"), *configfiles]:
        if not path.is_file():
            raise ConfigError(
                f"{path}: missing; run threedrs {command} from the repository's folder"
            )
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
        if not isinstance(content, dict | None):
            raise ConfigError(f"{path}: holds no sections (such as train:); correct the file")
        config = _merged(config, content or {})
    return config


def _merged(below: Any, above: dict[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` on top, table by table, as Snakemake merges its files."""
    result = dict(below) if isinstance(below, dict) else {}
    for key, value in above.items():
        result[key] = _merged(result.get(key), value) if isinstance(value, dict) else value
    return result


def console() -> "Console":
    """Return a console that prints texts as they are and breaks no line."""
    from rich.console import Console

    return Console(markup=False, highlight=False, soft_wrap=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Return a table without lines, the first column to the left and the others to the right."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False)
    for number, name in enumerate(head):
        found.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        found.add_row(*row)
    return found
