"""What the rule files call: checks that stop a start, and what jobs get of what a rule asks for."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.repository import ROOT
from threedrs.errors import ConfigError, DataError
from threedrs.workflow.rule_helpers import (
    check_amounts,
    check_cores,
    check_rule_names,
    checked,
    gate,
    in_force,
    more_each_time,
    teacher_need,
)


def test_a_gate_stops_the_first_process_alone() -> None:
    def check(name: str) -> None:
        raise DataError(f"{name}: missing")

    assert gate(False, check, "a.json") == []
    assert gate(True, str, "a.json") == []
    with pytest.raises(SystemExit, match=r"^threedrs: error: a\.json: missing$"):
        gate(True, check, "a.json")


def test_jobs_need_a_core() -> None:
    for cores in (None, 1, 64):  # None: of a cluster
        check_cores(cores)
    with pytest.raises(ConfigError, match=r"^--cores 0: no job could start; give 1 or more"):
        check_cores(0)


def test_a_folder_that_may_not_be_entered_stops_in_a_line() -> None:
    def look() -> None:
        raise PermissionError(13, "Permission denied", "locked/data")

    with pytest.raises(SystemExit, match=r"^threedrs: error: locked/data: cannot be read .*$"):
        checked(look)


def test_memory_grows_with_every_attempt() -> None:
    need = teacher_need("mem_mb")
    teacher = SimpleNamespace(teacher="vggt-tiny")
    assert more_each_time(need)(teacher, attempt=2) == 2 * need(teacher)


@dataclass
class Resource:
    """Stands in for Snakemake's."""

    value: Any
    evaluable: bool = False

    @property
    def raw(self) -> Any:
        return self.value

    def is_evaluable(self) -> bool:
        return self.evaluable


def test_a_count_that_is_a_word_is_refused() -> None:
    def check(threads: Any = 2, **amounts: Any) -> None:
        found = {name: Resource(value, isinstance(value, str)) for name, value in amounts.items()}
        check_amounts(
            SimpleNamespace(
                overwrite_resources={"train": found},
                overwrite_threads={"predict": Resource(threads, isinstance(threads, str))},
            )
        )

    check(gpu=4, tasks="attempt*2", nodes="attempt", runtime="2h", slurm_partition="gpu")
    with pytest.raises(ConfigError, match=r"^gpu of rule train is set to x, which is not a number"):
        check(gpu="x")
    with pytest.raises(ConfigError, match=r"^threads of rule predict is set to all, which is"):
        check(threads="all")


def test_a_mistyped_rule_is_refused_and_another_workflows_is_not() -> None:
    def check(resources: str, threads: str) -> None:
        asked = {"overwrite_resources": {resources: {}}, "overwrite_threads": {threads: 2}}
        check_rule_names(SimpleNamespace(**asked), ROOT / "workflow/rules")

    check("train", "map_reads")
    check("train_model", "demo_data")  # a rule of the demo, whatever is configured
    with pytest.raises(ConfigError, match=r"^set-resources: trian is not a rule; did you mean tr"):
        check("trian", "train")
    with pytest.raises(ConfigError, match=r"^set-threads: scenefacts .* did you mean scene_facts"):
        check("train", "scenefacts")


@pytest.mark.parametrize(
    ("overrides", "limits", "expected"),
    [
        ({}, {}, 8),
        ({"gpu": Resource(4)}, {}, 4),
        ({"gpu": Resource("attempt*2", evaluable=True)}, {"gpu": Resource(2)}, None),
        ({"tasks": Resource(4)}, {"gpu": Resource(2)}, 2),
        ({"gpu": Resource(1)}, {"gpu": Resource(2)}, 1),
    ],
)
def test_what_is_in_force(
    overrides: dict[str, Resource], limits: dict[str, Resource], expected: int | None
) -> None:
    settings = SimpleNamespace(overwrite_resources={"train": overrides})
    workflow = SimpleNamespace(resource_settings=settings, global_resources=limits)
    assert in_force(workflow, "train")("gpu", 8) == expected
