"""What the rules expand over, and what jobs ask for and are told."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fixtures.repository import ROOT
from threedrs.config.load import load_config
from threedrs.config.resources import PREDICT_NEEDS, TRAIN_NEEDS
from threedrs.errors import ConfigError, DataError
from threedrs.evaluation.aggregate import setting_groups
from threedrs.report.verdict import config_differences
from threedrs.workflow import targets
from threedrs.workflow.targets import Targets


def build(monkeypatch: pytest.MonkeyPatch, **sections: dict[str, Any]) -> Targets:
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("config/config.yaml").read_text())
    for name, keys in sections.items():
        config[name] |= keys
    return Targets(load_config(config))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Targets:
    """Ten train scenes in shards of four, and four val scenes."""
    return build(
        monkeypatch,
        data={"scenes_per_shard": 4},
        teacher={"scenes_per_shard": 3},
        runs={"other": {"train": {"eval_every": 5}, "execution": {"keep": 7}}},
    )


def wildcards(**names: str) -> SimpleNamespace:
    return SimpleNamespace(**names)


def test_a_stage_with_nothing_to_make_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, found: Targets
) -> None:
    found.check_asked({"features", "models", "all"}, str)
    with pytest.raises(
        ConfigError, match=r"^answers: .* as no split of data\.scenes has questions"
    ):
        found.check_asked({"all", "answers"}, str)
    with pytest.raises(ConfigError, match=r"^mine_answers: there is nothing to make"):
        found.check_asked({"mine_answers"}, "mine_{}".format)
    found.check_asked({"answers"}, "mine_{}".format)  # the other workflow's own
    found.check_asked({"mine"}, lambda name: "mine")  # one rule, of which the name is not known
    alone = {"baseline": {"checkpoint": "initial"}, "3drs": None}
    evaluated = build(monkeypatch, runs=alone)
    evaluated.check_asked({"all", "scores"}, str)
    for target, reason in (("features", "with a teacher"), ("models", "no run is trained here")):
        with pytest.raises(ConfigError, match=rf"^{target}: there is nothing to make, .*{reason}"):
            evaluated.check_asked({target}, str)


def test_scenes_are_cut_into_shards(found: Targets) -> None:
    train, val = found.scenes["train"], found.scenes["val"]
    assert (len(train), len(val)) == (8, 6)
    assert [len(scenes) for scenes in found.scene_shards.values()] == [4, 4, 4, 2]
    assert found.split_shards("val") == ["val-000", "val-001"]
    assert found.feature_shards["train-001"] == train[3:6]
    assert found.scene_shards_of(train[3:6]) == ["train-000", "train-001"]
    folder = Path("results/demo/scannet/scans") / val[4]
    assert found.scan_files("val-001", "mesh")[0] == folder / f"{val[4]}_vh_clean_2.ply"
    assert len(found.scan_files("val-001", "mesh", "meta")) == 4


def test_own_captures_are_shards_of_their_own_and_change_nothing_else(
    found: Targets, tmp_path: Path
) -> None:
    for number in range(5):
        (tmp_path / f"room.{number}").mkdir()
    given = {"mylab": {"captures": [f"{tmp_path}/room.*"]}}
    more = Targets(load_config({**found.config, "data": {**found.config["data"], "scenes": given}}))
    assert list(more.capture_shards) == ["mylab-000", "mylab-001"]
    assert more.split_shards("mylab") == ["mylab-000", "mylab-001"]
    assert more.shard_captures("mylab-001") == {"room.4": tmp_path / "room.4"}
    assert more.asked == []
    assert "own captures, mylab (5): room.0, " in more.scan_table()
    assert more.scene_shards == found.scene_shards
    assert more.data == found.data
    assert more.run_config("other") == found.run_config("other")


def test_what_is_asked_on_the_way_makes_no_setting(found: Targets) -> None:
    runs = {
        "a": {"teacher": {"name": "none"}},
        "b": {"teacher": {"name": "none"}, "train": {"seed": 8, "eval_every": 5}},
        "c": {"teacher": {"name": "none"}, "train": {"seed": 9}, "execution": {"keep": 7}},
    }
    asked = Targets(load_config({**found.config, "runs": {**found.config["runs"], **runs}}))
    configs = {run: asked.run_config(run) for run in runs}
    assert "evaluation" in configs["b"]
    assert setting_groups([*runs], configs, "a") == [["a", "b", "c"]]
    carried = {run: asked.resolved[run] for run in runs}  # with the section execution
    assert setting_groups([*runs], carried, "a") == [["a", "b", "c"]]
    changed = [name for name, _, _ in config_differences(configs["b"], configs["a"])]
    assert changed == ["train.eval_every", "train.seed"]


def test_another_room_is_refused_at_the_start_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = {"train": ["scene0003_00"], "val": ["scene0001_00", "scene0001_01"]}
    monkeypatch.setattr(targets, "demo_scenes", lambda count: scans)
    build(monkeypatch)
    with pytest.raises(ConfigError, match="other_room, and scene0001 is the only room of val"):
        build(monkeypatch, eval={"controls": ["other_room"]})


def test_one_run_tells_the_questions_and_the_others_make_them_not_stale(found: Targets) -> None:
    assert found.telling_runs() == ["baseline"]
    named = {**found.config, "report": {**found.config["report"], "baseline": "other"}}
    assert Targets(load_config(named)).telling_runs() == ["other"]
    # A checkpoint may be without the head that boxes are chosen by, so all are asked.
    as_they_are = {name: {"checkpoint": "initial"} for name in ("a", "baseline")}
    asked = Targets(load_config({**found.config, "runs": as_they_are}))
    assert asked.telling_runs() == ["a", "baseline"]


def test_runs_and_what_they_use(found: Targets) -> None:
    assert found.teachers == ["vggt-tiny"]
    assert list(found.resolved) == ["3drs", "baseline", "other"]
    config = found.run_config("other")
    assert "execution" not in config
    assert config["train"]["eval_every"] == 5
    assert config["evaluation"]["left_out"] == "results/scenes/left_out/val.json"
    scenes = found.feature_shards["train-001"]
    assert {config["paths"]["features"][scene] for scene in scenes} == {
        "results/features/vggt-tiny/train-001.zarr"
    }
    assert len(config["paths"]["features"]) == len(found.scenes["train"])
    baseline = found.run_config("baseline")
    assert baseline["paths"]["features"] == {}
    assert "evaluation" not in baseline
    assert json.loads(found.execution(wildcards(run="other")))["keep"] == 7
    assert found.predict_settings("3drs") == {
        "prompt": "as_trained",
        "decoding": "greedy",
        "max_new_tokens": 512,
        "boxes": "pred",
        "coordinate_dtype": "float32",
        "attention": "auto",
        "limit": None,
    }
    assert found.teacher_section("vggt-tiny") == {
        "name": "vggt-tiny",
        "seed": 0,
        "grid": 14,
    }
    assert "on_bad_scene" not in found.data


def test_only_a_run_that_evaluates_on_the_way_waits_for_val_scenes(found: Targets) -> None:
    usual, other = wildcards(run="3drs"), wildcards(run="other")
    assert found.evaluation_on_the_way("3drs") is None
    assert found.evaluation_files(usual) == []
    records = [targets.evaluation_records(name) for name in found.benchmarks]
    shards = ["results/scenes/shards/val-000.json", "results/scenes/shards/val-001.json"]
    waited_for = ["results/scenes/left_out/val.json"]
    assert found.evaluation_files(other) == records + shards + waited_for
    assert records[0] == "results/instructions/scanrefer_val.jsonl"
    counted = targets.evaluation_records("sqa3d", "summary.json")
    assert counted == "results/instructions/sqa3d_test.summary.json"


def test_what_is_downloaded_below_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"repo": "a/b", "files": ["x/config.json", "y"], "to": "data/models"}
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load(Path("config/config.yaml").read_text()) | {"download": [entry]}
    found = Targets(load_config(config))
    assert found.downloaded_below("data/models/x") == [Path("data/models/x/config.json")]
    assert found.downloaded_below(None) == []


def test_own_data_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"/scannet/scannetv2_train\.txt: missing"):
        build(monkeypatch, data={"demo": None, "root": str(tmp_path)})


def test_the_demo_has_no_table(found: Targets) -> None:
    assert found.scan_table() == "Where scenes come from: the demo data"


def test_needs_follow_from_size_teacher_and_attempt(found: Targets) -> None:
    run = wildcards(run="3drs")
    assert tuple(found.need(needs, "mem_mb")(run) for needs in (TRAIN_NEEDS, PREDICT_NEEDS)) == (
        4000,
        3000,
    )


def test_a_batch_is_held_against_the_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = build(
        monkeypatch,
        model={"size": "7b", "path": None, "random_weights": True},
        train={"global_batch": 16, "pack": 4},
        runs={"fits": {"train": {"pack": 2}}},
    )
    monkeypatch.chdir(tmp_path)  # a training of the demo in the checkout would be gone on with
    found.check_batch("fits", lambda name, asked: asked)
    found.check_batch("3drs", lambda name, asked: 4 if name == "gpu" else asked)
    with pytest.raises(ConfigError) as error:
        found.check_batch("3drs", lambda name, asked: asked)
    lines = str(error.value).splitlines()
    assert [line.split(":")[1] for line in lines] == [" runs.3drs", " runs.baseline"]
    assert "train.pack 4 x 8 ranks x accumulation is not train.global_batch 16" in lines[0]


def test_imported_features_are_held_against_the_scans_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = build(monkeypatch, teacher={"name": "import", "weights": "config"})
    assert found.posed_images("import") == Path("results/demo/scannet/posed_images")
    assert found.posed_images("vggt-tiny") is None
    assert found.teacher_candidates(wildcards(teacher="import")) == []
    found.layout = found.layout.replace(candidates="infos_{split}.pkl")
    named = [f"results/candidates/{split}.json" for split in ("train", "val", "test")]
    assert found.teacher_candidates(wildcards(teacher="import")) == named
    assert found.teacher_candidates(wildcards(teacher="vggt-tiny")) == []


def test_a_run_with_a_checkpoint_asks_for_nothing_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = {"3drs": None, "baseline": None, "start": {"checkpoint": "initial"}}
    found = build(monkeypatch, runs=runs, report={"baseline": "start"})
    assert (found.trained, found.teachers, found.mixes) == ([], [], [])
    assert list(found.scenes) == ["val"]
    assert found.feature_shards == {}
    assert found.model("start") == "results/train/start/config.json"
    assert found.run_config("start")["train"] == {"seed": 42}
    assert found.evaluation_on_the_way("start") is None


def test_trained_runs_and_checkpoints_stand_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    (tmp_path / "model.safetensors").touch()
    runs = {"published": {"checkpoint": str(tmp_path), "model": {"attention": "sdpa"}}}
    found = build(monkeypatch, runs=runs)
    assert found.trained == ["3drs", "baseline"]
    assert list(found.scenes) == ["train", "val"]
    assert found.model("published") == str(tmp_path)
    published = wildcards(run="published")
    assert found.model_files(published) == [
        tmp_path / "config.json",
        tmp_path / "model.safetensors",
    ]
    assert found.trained_folder(published) == []
    assert found.model_files(wildcards(run="3drs")) == ["results/train/3drs/model.json"]
    assert found.predict_settings("published")["attention"] == "sdpa"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"checkpoint": "no/where"}, "runs.x: checkpoint: no/where is not a folder"),
        ({"checkpoint": "src"}, "runs.x: checkpoint: src/config.json: "),
        (
            {"checkpoint": "initial", "train": {"epochs": 2}},
            "runs.x.train.epochs means nothing beside checkpoint, since the run is not trained",
        ),
        (
            {"checkpoint": "initial", "extends": "baseline"},
            "runs.x.teacher means nothing beside checkpoint",
        ),
        (
            {"checkpoint": "initial", "model": {"size": "7b", "path": None}},
            "size 7b needs a checkpoint folder",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_evaluated_is_named(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        build(monkeypatch, runs={"x": run})
    assert message in str(error.value)


def test_content_of_files_that_are_not_there_cannot_be_asked_for(
    found: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("voxels", "candidates"):
        with pytest.raises(ConfigError, match=rf"^config: data\.{key} names no file; mend it"):
            found.refuse(key)
    named = build(monkeypatch, data={"voxels": "pcd.pkl"})
    with pytest.raises(ConfigError, match=r"^config: data\.voxels names pcd\.pkl, which is not"):
        named.refuse("voxels")


def test_controls_are_asked_of_benchmarks_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    found = build(
        monkeypatch,
        eval={"controls": ["other_room"], "benchmarks": ["scanrefer", "scanqa", "sqa3d"]},
    )
    assert found.controls == ["scanqa-other_room", "sqa3d-other_room"]
    assert targets.asked_benchmark("sqa3d-other_room") == ("sqa3d", "other_room")
    assert targets.evaluation_records("sqa3d-other_room") == targets.evaluation_records("sqa3d")
    assert found.predict_settings("3drs", "sqa3d-other_room")["control"] == "other_room"
    # Nothing is stale where no control is asked for.
    assert "control" not in found.predict_settings("3drs", "sqa3d")
