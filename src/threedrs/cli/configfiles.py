"""The configuration files of a command, one on top of the other, as Snakemake merges them."""

from pathlib import Path
from typing import Any


def merged_configuration(configfiles: list[Path], command: str) -> dict[str, Any]:
    """Return config/config.yaml with ``configfiles`` on top, not checked yet, for ``command``.

    Raises:
        ConfigError: a file is missing, is not YAML, or holds no sections.
    """
    import yaml
    from snakemake.utils import update_config

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
        update_config(config, content or {})
    return config
