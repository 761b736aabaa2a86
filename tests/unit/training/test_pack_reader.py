"""Reading packs: what they hold, and one-line errors from the loader's processes."""

import random
import shutil
import sys
import time
from contextlib import closing
from dataclasses import replace
from multiprocessing import active_children, get_context
from threading import Timer
from unittest.mock import patch

import numpy as np
import pytest
import torch

from fixtures import training_run
from fixtures.mix_records import lines_of
from fixtures.training_run import SCENES, SHARD, records, write_features, write_scene_inputs
from threedrs.errors import DataError, MachineError, StoreError, ThreedrsError
from threedrs.models.tokenizer import tiny_tokenizer
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import Record
from threedrs.teachers.feature_store import FeatureStore
from threedrs.training.pack_reader import PackReader, RecordTable, explain_lost_loader, load_packs
from threedrs.training.sampler import PackPlan

PLANS = [
    PackPlan(scene=SCENES[0], indices=(0, 1, 2)),
    PackPlan(scene=SCENES[1], indices=(3,)),
    PackPlan(scene=SCENES[1], indices=(4, 5)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for seed, scene in enumerate(SCENES):
        write_scene_inputs(folder, scene, seed)
    write_features(folder)
    return folder


@pytest.fixture(scope="module")
def reader(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<ground>", "<coord>"])
    return PackReader(
        records=records(6),
        scenes=folder / "results/scenes",
        features=dict.fromkeys(SCENES, folder / SHARD),
        boxes="gt",
        tokenizer=tokenizer,
        label_chat_tokens=True,
        max_length=4096,
    )


def test_records_know_their_task_group_and_their_words():
    def item(human, answer, **fields):
        turns = [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]
        return Record(id="r", benchmark="b", scene=SCENES[0], conversations=turns, **fields)

    items = [
        item("<image> What color is it?", "dark red"),
        item("<image> Describe <coord> .", "A bed.", box_input=[0.0, 0, 0, 1, 1, 1]),
        item("<image>Find the object.\nA red box.", "<ground>", object_ids=[3]),
    ]
    table = RecordTable(lines_of(items))
    assert table.groups == ["questions", "captions", "grounding"]
    assert table.words == [7, 6, 7]


def test_pack_holds_what_the_stores_hold(folder, reader):
    pack = reader.read(PLANS[0])

    store = SceneStore.open(folder / f"results/scenes/{SCENES[0]}.zarr")
    fine, coarse = store.masks("gt")
    features = FeatureStore.open(folder / SHARD).features(SCENES[0])
    assert [sample.id for sample in pack.samples] == ["sample-0", "sample-1", "sample-2"]
    assert [sample.target_rows for sample in pack.samples] == [None, [1], None]
    np.testing.assert_array_equal(pack.scene.rgb_VHWC, store.rgb())
    np.testing.assert_array_equal(pack.scene.patch_xyz_VGG3, store.patch_xyz())
    np.testing.assert_array_equal(pack.scene.boxes_N6, store.boxes("gt").boxes)
    np.testing.assert_array_equal(pack.scene.fine_NVFF, fine)
    np.testing.assert_array_equal(pack.scene.coarse_NVGG, coarse)
    np.testing.assert_array_equal(pack.scene.teacher_VGGC, features)
    assert pack.scene.patch_xyz_VGG3.dtype == pack.scene.boxes_N6.dtype == torch.float32


def test_a_store_is_opened_once_until_it_is_written_anew(tmp_path, reader):
    write_scene_inputs(tmp_path, SCENES[0], seed=3)
    own = replace(reader, scenes=tmp_path / "results/scenes", features={})
    with patch.object(SceneStore, "open", side_effect=SceneStore.open) as opened:
        first, again = own.read(PLANS[0]), own.read(PLANS[0])
        assert opened.call_count == 1
        assert torch.equal(again.scene.rgb_VHWC, first.scene.rgb_VHWC)
        # A pack's tensors are its own: what a step does to them must not reach the next pack.
        assert again.scene.rgb_VHWC.data_ptr() != first.scene.rgb_VHWC.data_ptr()

        shutil.rmtree(own.scenes)
        write_scene_inputs(tmp_path, SCENES[0], seed=4)
        changed = own.read(PLANS[0])
    assert opened.call_count == 2
    assert not torch.equal(changed.scene.rgb_VHWC, first.scene.rgb_VHWC)


def test_without_a_teacher_no_features_are_read(reader):
    assert replace(reader, features={}).read(PLANS[1]).scene.teacher_VGGC is None


@pytest.mark.parametrize("workers", [0, 2])
def test_packs_come_in_order_and_leave_the_random_state_alone(reader, workers):
    before = torch.get_rng_state()

    packs = list(load_packs(reader, PLANS, workers))

    assert [len(pack.samples) for pack in packs] == [3, 1, 2]
    assert [pack.samples[0].id for pack in packs] == ["sample-0", "sample-3", "sample-4"]
    assert torch.equal(torch.get_rng_state(), before)


def test_too_long_pack_names_its_longest_sample(reader):
    with pytest.raises(DataError, match=r"sample-2: its pack of 3 samples .*max_length 300"):
        replace(reader, max_length=300).read(PLANS[0])


def test_error_in_a_worker_arrives_as_its_own_line(reader, tmp_path):
    missing = replace(reader, scenes=tmp_path)

    with pytest.raises(ThreedrsError) as caught:
        list(load_packs(missing, PLANS, workers=1))

    assert str(tmp_path) in str(caught.value)
    assert "Traceback" not in str(caught.value)


class Failing:
    """A reader that raises."""

    def __init__(self, error):
        self.error = error

    def read(self, plan):
        raise self.error


@pytest.mark.parametrize(
    "error", [RuntimeError("sizes differ\nby one"), EOFError("cut off"), KeyError("no such key")]
)
def test_a_bug_in_a_worker_is_shown_and_is_no_lost_loader(error):
    packs = load_packs(Failing(error), PLANS, workers=1)
    with pytest.raises(RuntimeError) as caught, explain_lost_loader(), closing(packs):
        next(packs)

    assert "in read\n    raise self.error" in str(caught.value)
    assert f"{type(error).__name__}: " in str(caught.value)
    assert str(error) in str(caught.value)
    assert active_children() == []  # the traceback, still held here, would keep them alive


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("DefaultCPUAllocator: you tried to allocate 8 bytes"), "memory ran out (Def"),
        (PermissionError(13, "Permission denied", "store.zarr"), "store.zarr: cannot be read"),
    ],
)
def test_what_a_user_can_put_right_is_one_line_from_a_worker_too(error, line):
    packs = load_packs(Failing(error), PLANS, workers=1)
    with pytest.raises(ThreedrsError) as caught, explain_lost_loader(), closing(packs):
        next(packs)

    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_only_a_loader_that_is_gone_is_explained():
    with (
        pytest.raises(MachineError, match=r"lost \(DataLoader worker \(pid 3\) is killed by .*\)"),
        explain_lost_loader(),
    ):
        raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. ")
    with pytest.raises(RuntimeError, match=r"^the DataLoader worker"), explain_lost_loader():
        raise RuntimeError("the DataLoader worker's pack does not fit the student")


def kill_loaders(reader, said):
    """Kill loaders at 2 moments; tell what was said of each, and what Python said besides."""
    lines, besides, moments = [], [], random.Random(0)
    sys.unraisablehook = besides.append
    for _ in range(2):
        packs = load_packs(reader, PLANS * 20, workers=1)
        try:
            with explain_lost_loader(), closing(packs):
                next(packs)
                (loader,) = active_children()
                Timer(moments.random() / 5, loader.kill).start()
                for _ in packs:
                    time.sleep(0.01)
        except MachineError as error:
            lines.append(str(error))
    said.put((lines, [str(other.exc_value) for other in besides]))


@pytest.mark.slow
def test_killed_worker_is_explained(reader):
    # In a process of its own: torch raises from a signal handler, at whatever line is running.
    context = get_context("spawn")
    said = context.Queue()
    process = context.Process(target=kill_loaders, args=(reader, said))
    process.start()

    lines, besides = said.get(timeout=120)
    process.join()

    assert len(lines) == 2
    for line in lines:
        assert "a loader process was lost" in line
        assert "execution.workers" in line
    assert besides == []


def test_features_of_other_frames_are_refused(reader, tmp_path):
    write_features(tmp_path, frame_ids=(7,))

    with pytest.raises(StoreError, match=SCENES[0]):
        replace(reader, features={SCENES[0]: tmp_path / SHARD}).read(PLANS[0])


def test_features_that_are_not_finite_are_refused(reader, monkeypatch):
    monkeypatch.setattr(
        FeatureStore, "features", lambda store, scene: np.full((1, 14, 14, 768), np.nan, np.float16)
    )

    with pytest.raises(StoreError, match="scene0000_00 holds features that are not finite"):
        reader.read(PLANS[0])


@pytest.fixture
def three_frames(reader, tmp_path, monkeypatch):
    """Return a reader of scenes of the frames 0, 1, 2, and a function that writes the features."""
    monkeypatch.setattr(training_run, "FRAMES", 3)
    for seed, scene in enumerate(SCENES):
        write_scene_inputs(tmp_path, scene, seed)
    return replace(
        reader,
        scenes=tmp_path / "results/scenes",
        features=dict.fromkeys(SCENES, tmp_path / SHARD),
    )


@pytest.mark.parametrize(
    ("rule", "teacher", "rows", "taken"),
    [
        ("by_frame", (0, 1, 2), None, [0, 1, 2]),
        ("by_frame", (2, 7, 0), [0, 2], [2, 0]),
        ("by_frame", (9, 1), [1], [1]),
        ("as_published", (2, 7, 0), None, [0, 1, 2]),
    ],
)
def test_features_of_other_frames_supervise_by_the_rule(
    three_frames, tmp_path, rule, teacher, rows, taken
):
    write_features(tmp_path, (0, 1, 2), teacher)
    features = FeatureStore.open(tmp_path / SHARD).features(SCENES[0])

    scene = replace(three_frames, other_frames=rule).read(PLANS[0]).scene

    found = None if scene.supervised_S is None else scene.supervised_S.tolist()
    assert found == rows
    np.testing.assert_array_equal(scene.teacher_VGGC, features[taken])


def test_a_scene_without_a_common_frame_has_no_supervision(three_frames, tmp_path):
    write_features(tmp_path, (0, 1, 2), (7, 8, 9))

    scene = three_frames.read(PLANS[0]).scene

    assert scene.teacher_VGGC is None
    assert scene.supervised_S is None
