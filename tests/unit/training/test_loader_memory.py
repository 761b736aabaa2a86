"""The loaders hold workers x PREFETCH packs, however many scenes they have read."""

import dataclasses
import gc
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.mix_records import lines_of
from fixtures.training_run import SCENES, SHARD, records, write_features, write_scene_inputs
from threedrs.models.packing import Pack
from threedrs.models.tokenizer import tiny_tokenizer
from threedrs.tasks.record import Record
from threedrs.training.pack_reader import PREFETCH, PackReader, RecordTable, load_packs
from threedrs.training.sampler import PackPlan

READS = 60


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> PackReader:
    """Return a reader of many scenes, which are two stores under many names."""
    folder = tmp_path_factory.mktemp("loader")
    for seed, scene in enumerate(SCENES):
        write_scene_inputs(folder, scene, seed)
    write_features(folder)
    # As many paths, so that whatever remembers by path would remember them all.
    for number in range(READS // 2):
        (folder / f"copy-{number}").mkdir()
        (folder / f"copy-{number}/scenes").symlink_to(folder / "results/scenes")
        (folder / f"copy-{number}/shard").symlink_to(folder / SHARD)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<ground>", "<coord>"])
    return ManyNames(
        records=records(6),
        scenes=folder,
        features={},
        boxes="gt",
        tokenizer=tokenizer,
        label_chat_tokens=True,
        max_length=4096,
    )


@pytest.fixture(scope="module")
def fresh() -> Iterator[ProcessPoolExecutor]:
    """Return a new process: a loader is its fork, and copies what earlier tests left there."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as process:
        yield process


class ManyNames(PackReader):
    """Reads each plan's stores under another path; ``scene`` of a plan is NUMBER/SCENE."""

    def read(self, plan: PackPlan) -> Pack:
        """Return the pack of the plan's scene, by its own name."""
        number, _, scene = plan.scene.partition("/")
        copy = self.scenes / f"copy-{number}"
        one = PackReader(
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(PackReader)
                if field.name not in ("scenes", "features")
            },
            scenes=copy / "scenes",
            features={scene: copy / "shard"},
        )
        return one.read(PackPlan(scene=scene, indices=plan.indices))


def plans(count: int) -> Iterator[PackPlan]:
    for read in range(count):
        yield PackPlan(scene=f"{read // 2}/{SCENES[read % 2]}", indices=(read % 6,))


def own_kilobytes(process: int) -> int:
    """Return the memory that the process shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def pack_bytes(pack: Pack) -> int:
    values = vars(pack.scene).values()
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def loader_sizes(reader: PackReader) -> tuple[int, list[int]]:
    """Return the bytes of a pack, and the loader's kilobytes after every tenth of the packs."""
    sizes: list[int] = []
    size = 0
    with closing(load_packs(reader, list(plans(READS)), workers=1)) as packs:
        for number, pack in enumerate(packs, start=1):
            if number == 1:
                (loader,) = active_children()
                size = pack_bytes(pack)
            if number % (READS // 10) == 0 and number < READS:
                assert loader.pid is not None
                sizes.append(own_kilobytes(loader.pid))
    assert number == READS
    return size, sizes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="needs Linux")
def test_scenes_leave_no_trace_in_a_loader(reader: PackReader, fresh: ProcessPoolExecutor) -> None:
    size, sizes = fresh.submit(loader_sizes, reader).result(timeout=120)
    # One pack takes 0.8 MB here: keeping every scene would have added 40 MB by now.
    assert size > 700_000
    growth = 1024 * (max(sizes[4:]) - sizes[0])
    assert growth < 5 * size, sizes


def read_all(table: RecordTable, sizes: Any) -> None:
    gc.collect()  # which writes to all objects that it counts
    before = own_kilobytes(os.getpid())
    length = sum(len(record.human) for record in table)
    sizes.put((length, own_kilobytes(os.getpid()) - before))


def grown_by_reading_all(record: Record, count: int) -> tuple[int, int]:
    """Return the characters of all prompts, and by how many kilobytes a fork grew to read them."""
    fork = multiprocessing.get_context("fork")
    sizes = fork.Queue()
    process = fork.Process(target=read_all, args=(RecordTable(lines_of([record] * count)), sizes))
    process.start()
    found = sizes.get(timeout=60)
    process.join()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="needs Linux")
def test_a_loader_shares_the_mix_with_its_rank(fresh: ProcessPoolExecutor) -> None:
    (record,) = records(1)
    length, grown = fresh.submit(grown_by_reading_all, record, 20_000).result(timeout=120)
    assert length == 20_000 * len(record.human)
    # As objects these records are some 24 MB, which a fork copies by looking at them.
    assert grown < 4_000


def test_a_record_table_holds_its_records_in_order() -> None:
    items = [dataclasses.replace(item, id=f"line\n{n} é") for n, item in enumerate(records(5))]
    table = RecordTable(lines_of(items))
    assert list(table) == items
    assert table[-2] == items[-2]
    assert table.scenes == [item.scene for item in items]
    assert list(RecordTable([])) == []
    for outside in (5, -6):
        with pytest.raises(IndexError):
            table[outside]


class Counted(ManyNames):
    """Counts, over all processes, the reads begun."""

    def read(self, plan: PackPlan) -> Pack:
        """Count, then read."""
        with BEGUN.get_lock():
            BEGUN.value += 1
        return super().read(plan)


BEGUN: Any = multiprocessing.get_context("fork").Value("i", 0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_is_read_ahead_than_the_bound(reader: PackReader, workers: int) -> None:
    BEGUN.value = 0
    counted = Counted(**{f.name: getattr(reader, f.name) for f in dataclasses.fields(PackReader)})
    ahead = []
    with closing(load_packs(counted, list(plans(30)), workers)) as packs:
        for taken, _ in enumerate(packs, start=1):
            ahead.append(BEGUN.value - taken)
    assert BEGUN.value == 30
    assert max(ahead) <= workers * PREFETCH


def test_packs_may_be_page_locked(reader: PackReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    (plan,) = plans(1)
    pack = reader.read(plan)
    locked = torch.utils.data._utils.pin_memory.pin_memory(pack)
    assert locked.samples == pack.samples
    for name, value in vars(pack.scene).items():
        other = getattr(locked.scene, name)
        if isinstance(value, torch.Tensor):
            assert other is not value
            assert torch.equal(other, value)
        else:
            assert other == value
