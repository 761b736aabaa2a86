"""The schema against the files that repeat it: the shipped configurations and what is generated."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from fixtures.repository import ROOT
from threedrs.config import reference
from threedrs.config.schema import Configuration, Execution, Section
from threedrs.errors import CheckpointError, ConfigError
from threedrs.models.model_settings import ModelSettings

SHIPPED = sorted(path for path in (ROOT / "config").glob("*.yaml") if path.name != "cluster.yaml")


def shipped(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config" / name).read_text())


def test_generated_files_are_up_to_date() -> None:
    """Else run: python -m threedrs.config.reference."""
    written = json.loads((ROOT / reference.SCHEMA_FILE).read_text())
    assert written == reference.json_schema()
    assert (ROOT / reference.PAGE_FILE).read_text() == reference.page()


def test_the_shipped_configuration_states_every_default() -> None:
    config = shipped("config.yaml")
    assert Configuration.model_validate(config) == Configuration()
    for name, section in Configuration.model_fields.items():
        fields = getattr(section.annotation, "model_fields", {})
        assert [*config[name]] == [*fields] or name in ("runs", "download")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_editors_find_the_schema_and_take_the_file(path: Any) -> None:
    line = path.read_text().splitlines()[0]
    named = line.removeprefix("# yaml-language-server: $schema=")
    schema = json.loads((path.parent / named).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"train": {"epocs": 1}}, schema)


def sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from sections(inner)


def test_every_key_is_described() -> None:
    for section in sections(Configuration):
        assert section.__doc__
        for key, field in section.model_fields.items():
            inner = field.annotation
            assert field.description or (isinstance(inner, type) and issubclass(inner, Section)), (
                f"{section.__name__}.{key}"
            )


def test_settings_raise_the_errors_of_the_package() -> None:
    with pytest.raises(ConfigError) as error:
        Execution(keep=0, workers="two", wandb={"mode": "online"})
    assert str(error.value).splitlines() == [
        "execution.keep: 0 is less than the minimum of 1",
        "execution.wandb: 'project' is a required property",
        "execution.workers: 'two' is not of type 'integer'",
    ]
    with pytest.raises(CheckpointError, match=r"model\.path: size 7b needs a checkpoint"):
        ModelSettings(size="7b")
    settings = Execution(keep=3)
    assert settings.replace(keep=4) == Execution(keep=4)
    with pytest.raises(ConfigError, match=r"execution\.keep"):
        settings.replace(keep=0)
