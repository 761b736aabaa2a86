"""The steps of a run and of its schedule."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from threedrs.errors import DataError
from threedrs.planning.training import PAPER_GROUPS, _task_groups
from threedrs.training.recipe import TrainSettings
from threedrs.training.run_setup import Run, check_groups
from threedrs.training.sampler import sample_count


def make_run(groups: list[str], **changes: Any) -> Run:
    records = SimpleNamespace(
        groups=groups,
        scenes=[f"scene{index % 7:04d}_00" for index in range(len(groups))],
        words=list(range(len(groups))),
    )
    absent: Any = None
    return Run(
        config={},
        settings=TrainSettings(**{"batches": "task_groups", "epochs": 1, "pack": 1} | changes),
        paths=absent,
        records=records,  # type: ignore[arg-type]
        parts={},
        teacher_frames=None,
        ranks=absent,
        stop=absent,
    )


def test_the_published_run_takes_13944_steps_of_a_schedule_of_13945() -> None:
    # QA: ScanQA and SQA3D; captions: Scan2Cap; grounding: ScanRefer and Multi3DRefer.
    counts = {"questions": 26_515 + 79_445, "captions": 36_665, "grounding": 36_665 + 43_838}
    groups = [group for group, count in counts.items() for _ in range(count)]
    run = make_run(groups, global_batch=16)
    assert (run.total_steps, run.scheduled_steps) == (13_944, 13_945)
    assert math.ceil(run.settings.warmup_fraction * run.scheduled_steps) == 419
    # The plan knows the mix's size alone, and takes its groups to be the paper's.
    assert counts == PAPER_GROUPS
    assert _task_groups(len(groups)) == counts
    limited = make_run(groups, global_batch=16, max_steps=100)
    assert (limited.total_steps, limited.scheduled_steps) == (100, 100)


def test_a_resumed_run_goes_on_with_the_batches_that_are_left() -> None:
    groups = ["questions"] * 20 + ["captions"] * 13
    run = make_run(groups, global_batch=4, epochs=2)
    assert run.steps_per_epoch == 4 + 3
    epochs = list(run.batches_after(0))
    assert [len(batches) for batches in epochs] == [7, 7]
    assert epochs[0] != epochs[1]
    assert list(run.batches_after(5)) == [epochs[0][5:], epochs[1]]
    assert list(run.batches_after(9)) == [epochs[1][2:]]
    assert all(sample_count(batch) == 4 for batches in epochs for batch in batches)


def test_the_mix_is_counted_once_however_often_a_step_asks() -> None:
    class Groups(list[str]):
        reads = 0

        def __iter__(self) -> Iterator[str]:
            self.reads += 1
            return super().__iter__()

    groups = Groups(["questions"] * 20)
    run = make_run(groups, global_batch=4)
    assert [run.total_steps for _ in range(3)] == [4, 4, 4]
    assert run.scheduled_steps == 5
    assert groups.reads == 1


def test_a_group_that_would_never_be_trained_on_is_refused() -> None:
    # ceil(17 / 16) - 1 = 1 step; 16 samples give ceil(16 / 16) - 1 = 0.
    groups = ["questions"] * 40 + ["grounding"] * 17
    check_groups(groups, 16, Path("mix.jsonl"))
    with pytest.raises(DataError, match=r"mix\.jsonl: its 16 samples .* captions give no step"):
        check_groups(groups + ["captions"] * 16, 16, Path("mix.jsonl"))
