"""What reruns after which change: exactly the stale jobs, named by rule and wildcards.

docs/RELIABILITY.md shows the same as a table. Changes are made in a copy of a finished run and
taken back, so each test starts from the finished state.
"""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from fixtures.changed_checkout import removed
from fixtures.changed_checkout import trial as trial  # a fixture
from fixtures.checkout import SMALL, Checkout, copy_finished
from fixtures.stale_jobs import (
    EVALUATED,
    FROM_SCENES,
    FROM_TRAINING,
    MIX,
    REPORTS,
    SETTINGS,
    TEACHER,
    TRIVIAL,
    contents,
    features,
    predicted,
    really_run,
    scenes,
    trained,
)
from threedrs.scannet.sens import SensReader, SensWriter


def configured(folder: Path, changes: dict) -> Path:
    """Write the small configuration with ``changes`` to another file."""
    config = yaml.safe_load(SMALL.read_text())
    update_config(config, changes)
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_nothing_changed_in_content_or_in_the_users_machine(trial: Checkout) -> None:
    """Comments, white space, order and place of the settings; threads, memory, partitions."""
    config = yaml.safe_load(SMALL.read_text())
    path = trial.folder / "elsewhere" / "mine.yml"
    path.parent.mkdir()
    text = "# a remark\n\n" + yaml.safe_dump(dict(reversed(config.items())), indent=6)
    path.write_text(text.replace("count: 3", "count:   3   # frames"))
    profile = trial.folder / "mine"
    profile.mkdir()
    (profile / "config.yaml").write_text(
        "set-threads: {predict: 4, build_scenes: 2}\n"
        "default-resources: {mem_mb: 700, slurm_partition: short}\n"
    )
    machine = ["--profile", str(profile), "--set-threads", "train=3", "--set-resources"]
    machine += ["train:mem_mb=5000", "train:gpu=2", "predict:gpu=4", "score:slurm_partition=big"]
    assert trial.planned(*machine, config=path) == set()


def test_how_training_is_carried_out_reruns_nothing_and_arrives(trial: Checkout) -> None:
    """Loader processes, checkpoints, log, W&B, DeepSpeed, a guard: for the next start of a run."""
    new = {"workers": 3, "save_every": 7, "log_every": 9, "kept_layers": 1, "max_length": 40000}
    new |= {"gradient_checkpointing": True, "deepspeed": "config/deepspeed/zero3.json", "keep": 1}
    new |= {"wandb": {"project": "rooms", "entity": None, "mode": "online"}}
    new |= {"record_passes": True}
    runs = {"3drs": {"execution": {"keep": 4}}}
    config = configured(trial.folder, {"execution": new, "runs": runs})
    assert trial.planned(config=config) == set()

    said = trial.snakemake("models", "-n", "-p", "--forcerun", "train", config=config)
    assert said.returncode == 0, said.stdout
    commands = [line for line in said.stdout.splitlines() if " --execution " in line]
    handed = {}
    for command in commands:
        words = shlex.split(command)
        run = Path(words[words.index("--config") + 1]).parent.name
        handed[run] = json.loads(words[words.index("--execution") + 1])
    assert handed == {"3drs": new | {"keep": 4}, "baseline": new}


CONFIGURATIONS = {
    "loss weight of one run, a run added": (
        {
            "runs": {
                "3drs": {"supervision": {"weight": 0.5}},
                "new": {"train": {"seed": 5}},
            }
        },
        {"run_config 3drs", "run_config new"} | trained("3drs", "new"),
    ),
    "loss weight of all runs: the baseline has none": (
        {"supervision": {"weight": 0.5}},
        {"run_config 3drs"} | trained("3drs"),
    ),
    "frame strategy": ({"frames": {"strategy": "coverage"}}, SETTINGS | FROM_SCENES),
    "teacher": (
        {"teacher": {"name": "random", "seed": 1}},
        {"run_config 3drs"} | features("random") | trained("3drs"),
    ),
    "balancing": (
        {"instructions": {"mixes": {"full": {"caps": {"max_per_scene": 9}}}}},
        MIX | FROM_TRAINING,
    ),
    "another mix for one run": (
        {
            "instructions": {"mixes": {"less": {"balance": "all", "caps": {"max_per_scene": 9}}}},
            "runs": {"baseline": {"train": {"mix": "less"}}},
        },
        {"balance less", "run_config baseline"} | trained("baseline"),
    ),
    "how the model is asked": (
        {"eval": {"max_new_tokens": 9}, "boxes": {"eval": "gt"}},
        predicted(),
    ),
    "instruction sentence in the prompt": ({"eval": {"prompt": "reference"}}, predicted()),
    "a benchmark removed": ({"eval": {"benchmarks": [*EVALUATED][1:]}}, TRIVIAL | REPORTS),
    "title of the report, limit of bad scenes": (
        {"report": {"title": "Another"}, "data": {"max_bad_fraction": 0.5}},
        {"build_report", "check_limit train", "check_limit val"},
    ),
}


@pytest.mark.parametrize("change", CONFIGURATIONS)
def test_an_edited_configuration_reruns_what_uses_it(trial: Checkout, change: str) -> None:
    changes, expected = CONFIGURATIONS[change]
    assert trial.planned(config=configured(trial.folder, changes)) == expected


def test_a_removed_result_reruns_its_makers_and_users(trial: Checkout) -> None:
    results = trial.folder / "results"
    with removed(results / "eval" / "3drs" / "scanqa" / "predictions.jsonl"):
        assert trial.planned() == predicted(["3drs"], ["scanqa"])
    # Stores of features are stood for by their manifests.
    with removed(results / "features" / TEACHER):
        assert trial.planned() == features() | trained("3drs")
    with removed(results / "train" / "3drs" / "model"):
        assert trial.planned() == trained("3drs")
    with removed(results / "report" / "summary.tex"):
        assert trial.planned() == REPORTS


def test_a_replaced_sens_remakes_its_scene_alone(finished: Checkout, tmp_path: Path) -> None:
    checkout = copy_finished(finished, tmp_path / "checkout")
    results = checkout.folder / "results"
    sens = results / "demo" / "scannet" / "scans" / "scene0000_00" / "scene0000_00.sens"
    old = sens.rename(tmp_path / "old.sens")
    with SensReader(old) as reader, SensWriter.create(sens, reader.header) as writer:
        for frame in range(len(reader)):
            writer.add(reader.poses[frame], reader.color_bytes(0), reader.depth(frame))
    assert checkout.planned() == scenes("train-000") | features() | MIX | FROM_TRAINING
    stores = {
        scene: results / "scenes" / f"{scene}.zarr" for scene in ("scene0000_00", "scene0001_00")
    }
    stores["features"] = results / "features" / TEACHER / "train-001.zarr" / "scene0001_00"
    before = {name: contents(store) for name, store in stores.items()}
    manifest = results / "features" / TEACHER / "train-001.zarr" / "manifest.json"
    listed = manifest.read_bytes()
    really_run(checkout, "features")
    after = {name: contents(store) for name, store in stores.items()}
    assert after["scene0000_00"] != before["scene0000_00"]
    assert after["scene0001_00"] == before["scene0001_00"]
    assert after["features"] == before["features"]
    assert manifest.read_bytes() == listed
    checks = {"check_scenes train", "check_limit train", "scene_facts train-000", "scene_report"}
    assert checkout.planned() == checks | MIX | FROM_TRAINING
