"""The plan of a whole run has the jobs of the Snakefile and the figures of RESULTS.md."""

import copy
import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.testing import CliRunner

from fixtures.forked_jobs import forked_python
from fixtures.repository import ROOT
from threedrs.cli import app
from threedrs.config.load import load_config
from threedrs.config.resources import GPUS
from threedrs.config.yaml_files import merged
from threedrs.errors import ConfigError
from threedrs.planning.cluster import Cluster, Step, read_cluster
from threedrs.planning.estimate import estimate, seeds_of_study, training_plans
from threedrs.planning.stage_costs import MEASURED, figure
from threedrs.planning.workflow_steps import Workload, workflow_steps

CLUSTER = Cluster(
    nodes=2, cpus_per_node=128, gpus_per_node=8, gpu="H100", storage_rate=5.0, disk=20e3
)


@pytest.fixture(scope="module")
def paper() -> Workload:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load_config(merged([Path("config/paper.yaml")], "plan"), files=False)
    config["execution"]["deepspeed"] = str(ROOT / config["execution"]["deepspeed"])
    config["data"]["root"] = "no such folder"
    return Workload(config=config, cluster=CLUSTER)


def on(work: Workload, **changes) -> Workload:
    cluster = Cluster.model_validate(work.cluster.model_dump(exclude={"needs"}) | changes)
    return dataclasses.replace(work, cluster=cluster)


def scale() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks/scale.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


@pytest.mark.slow
def test_jobs_are_those_of_the_snakefile(
    tmp_path: Path, paper: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generated ScanNet of 70 scenes has the same number of jobs of each rule."""
    monkeypatch.setattr(sys, "executable", str(forked_python()))  # of the script's Snakemake
    benchmark, folder = scale(), tmp_path / "checkout"
    benchmark.write_checkout(folder, benchmark.configuration("base"), {"train": 60, "val": 10})
    real = benchmark.dry_run(folder, "all")["jobs"]
    config = paper.config | {"data": paper.config["data"] | {"root": str(folder / "data")}}
    work = Workload(config=config, cluster=CLUSTER)
    ours = {step.rule: len(step.seconds) for step in workflow_steps(work, training_plans(work))}
    assert ours == {rule: count for rule, count in real.items() if rule not in ("all", "total")}


def test_measured_figures_stand_in_the_results() -> None:
    sections = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8").split("\n## ")
    of_heading = {section.partition("\n")[0]: section for section in sections}
    for name, (_, heading, written) in MEASURED.items():
        for text in written:
            assert text in of_heading[heading], (name, text)


def test_the_plan_says_how_many_seeds_a_verdict_needs(paper: Workload) -> None:
    config = copy.deepcopy(paper.config)
    config["runs"] = {
        "3drs": {"teacher": {"name": "vggt"}},
        "3drs-b": {"teacher": {"name": "vggt"}, "train": {"seed": 43}},
        "baseline": {},
        "untrained": {"checkpoint": "initial"},
    }
    # Nine metrics of one setting: the numbers of docs/EVALUATION.md's table.
    assert seeds_of_study(config).startswith(
        "seeds: 2 settings are planned, each with 1 training or more. A verdict takes 9 "
        "evaluated rooms, and 3 trainings of each, which find differences from about 43 points on "
        "ScanRefer on. About 10, 5, 2 points take 7, 18, 97 seeds. Seeds are taken to "
        "vary by 3.8 points"
    )
    config["runs"] = {"baseline": {}}
    assert "nothing to compare" in seeds_of_study(config)


def test_rounds_by_hand() -> None:
    needs = {"gpu": 1, "threads": 1, "mem_mb": 6000, "runtime": 60, "nodes": 1}
    step = Step(stage="models", rule="train", seconds=[3600.0] * 5, needs=needs)
    cluster = CLUSTER.model_copy(update={"gpus_per_node": 1})
    # One GPU a node, two nodes, five jobs of an hour: three rounds.
    assert (step.at_once(cluster), step.hours(cluster), step.gpu_hours) == (2, 3.0, 5.0)
    assert step.hours(CLUSTER) == 1.0
    assert step.hours(CLUSTER.model_copy(update={"jobs": 1})) == 5.0
    assert step.hours(CLUSTER.model_copy(update={"memory_per_node": 6.0})) == 3.0
    # The longest job is a bound, and so is what all read and write at 5 GB/s.
    longest = dataclasses.replace(step, seconds=[36000.0, 3600.0, 3600.0])
    assert longest.hours(cluster) == 10.0
    assert dataclasses.replace(step, moved=5 * 3600 * 7).hours(cluster) == 7.0
    both = dataclasses.replace(step, needs=needs | {"nodes": 2})
    assert (both.at_once(cluster), both.hours(cluster), both.gpu_hours) == (1, 5.0, 10.0)


def test_gpus_have_their_figures() -> None:
    for gpu, (peak, memory) in GPUS.items():
        cluster = Cluster.model_validate(CLUSTER.model_dump() | {"gpu": gpu})
        assert (cluster.peak, cluster.gpu_memory) == (peak, memory)


@pytest.mark.slow
def test_the_papers_run_by_hand(paper: Workload) -> None:
    found, plans = estimate(paper), training_plans(paper)
    steps = {step.rule: step for step in workflow_steps(paper, plans)}
    stages = {stage.stage: stage for stage in found.stages}
    start = figure("start of a job, CPU s") + figure("queue, s a job")
    # 28 checkpoints (every 500 steps, and the last) of 12 bytes a parameter written and read again,
    # a model of 2 bytes a parameter read and written.
    checkpoint, model = 12 * 8.1227, 2 * 8.1227
    stops = figure("start of training, s") + (28 * 2 * checkpoint + 2 * model) / 5
    count = 13944
    seconds = [start + stops + plan.seconds_a_step * count for plan in plans.values()]
    assert stages["models"].gpu_hours == pytest.approx(8 * sum(seconds) / 3600)
    pixels, features = count * 16 * 0.0142, count * 16 * 0.0257
    moved = 2 * pixels + features + 4 * (model + 28 * checkpoint)
    assert steps["train"].moved == pytest.approx(moved)
    kept = 2 * model + 4 * checkpoint
    assert (steps["train"].kept, found.checkpoints) == pytest.approx((kept, 4 * checkpoint))
    assert stages["features"].jobs == 25
    # Both trainings run at a time, each on a node, so the longer one decides.
    assert stages["models"].hours == pytest.approx(max(seconds) / 3600, abs=0.01)
    assert found.hours == sum(stage.hours for stage in found.stages)
    # All that stays, and of each of two trainings one checkpoint more than it keeps.
    stays = sum(stage.disk for stage in found.stages)
    assert found.disk_peak == pytest.approx(stays + 2 * checkpoint)
    one_node = estimate(on(paper, nodes=1))
    assert one_node.disk_peak == pytest.approx(stays + checkpoint)
    assert one_node.disk_peak_pruned == pytest.approx(stays - checkpoint)
    assert "train takes" in found.risks[0].text
    assert found.risks[0].share < 1


def test_predictions_share_their_scenes_out_to_their_gpus(paper: Workload) -> None:
    plans = training_plans(paper)
    seconds = []
    for gpus in (1, 4):
        steps = workflow_steps(on(paper, needs={"predict": {"gpu": gpus}}), plans)
        predict = next(step for step in steps if step.rule == "predict")
        seconds.append(predict.seconds[paper.config["eval"]["benchmarks"].index("scan2cap")])
    start = figure("start of a job, CPU s") + figure("queue, s a job")
    start += figure("start of prediction, s") + figure("model, GB") / 5
    assert seconds[0] - start == pytest.approx(4 * (seconds[1] - start))


def test_the_last_step_saves_as_well(paper: Workload) -> None:
    train = {**paper.config["train"], "max_steps": 600}
    execution = {**paper.config["execution"], "save_every": 500, "keep": 2}
    config = paper.config | {"train": train, "execution": execution}
    work = dataclasses.replace(paper, config=config)
    assert estimate(work).checkpoints == 2 * 2 * 12 * 8.1227
    # No more stay than are saved.
    execution = {**execution, "keep": 9}
    found = estimate(dataclasses.replace(work, config=config | {"execution": execution}))
    assert found.checkpoints == 2 * 2 * 12 * 8.1227
    assert found.stages[3].disk == pytest.approx(found.checkpoints + 2 * 2 * 8.1227)


@pytest.mark.slow
def test_a_slow_storage_holds_every_stage_up(paper: Workload) -> None:
    found = estimate(on(paper, storage_rate=0.05))
    hours = {stage.stage: stage.hours for stage in found.stages}
    # 1,513 scans of 1.08 GB, their meshes of 20 MB, and stores of 32 MB that are written and read.
    scenes = (1.083 + 0.02 + 2 * 0.0322) * 1513 / 0.05 / 3600
    assert hours["scenes"] == pytest.approx(scenes, rel=0.01)
    assert hours["features"] == pytest.approx((0.0322 + 0.0257) * 1201 / 0.05 / 3600, rel=0.01)
    assert any("busy for 100% of the time" in risk.text for risk in found.risks)


@pytest.mark.slow
def test_more_is_never_slower(paper: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [
        estimate(on(paper, gpus_per_node=count, needs={"train": {"gpu": count}})).hours
        for count in (1, 4, 8)
    ]
    assert gpus == sorted(gpus, reverse=True)
    plans = training_plans(paper)
    monkeypatch.setattr("threedrs.planning.estimate.training_plans", lambda work: plans)
    hours = [estimate(on(paper, nodes=nodes)).hours for nodes in (1, 2, 3, 4, 6, 8)]
    assert hours == sorted(hours, reverse=True)
    assert hours[0] > 1.8 * hours[1]  # two runs on one node, then on one each
    faster = [estimate(on(paper, storage_rate=rate)).hours for rate in (0.2, 1, 5, 50)]
    assert faster == sorted(faster, reverse=True)
    monkeypatch.undo()
    assert estimate(on(paper, gpu="A100")).hours > 2.5 * hours[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time_limit": 4.0}, r"time limit: train runs .* of 4\.0 h; it saves before the limit"),
        ({"disk": 500.0}, r"disk: .* TB at most, 0\.5 TB free; remove each run's checkpoints"),
        ({"storage_rate": 0.2}, r"shared storage: at 0\.2 GB/s, busy for .*; raise train\.pack"),
    ],
)
def test_the_largest_risk_is_named(paper: Workload, changes: dict, words: str) -> None:
    risk = estimate(on(paper, **changes)).risks[0]
    assert re.search(words, f"{risk.text}; {risk.remedy}")


@pytest.mark.slow
def test_offload_needs_the_memory_of_the_hosts(paper: Workload) -> None:
    file = str(ROOT / "config/deepspeed/zero3_offload.json")
    config = {**paper.config, "execution": paper.config["execution"] | {"deepspeed": file}}
    needs = {"train": {"gpu": 8, "threads": 64, "mem_mb": 128_000}}
    work = on(dataclasses.replace(paper, config=config), needs=needs, memory_per_node=512)
    (risk,) = [risk for risk in estimate(work).risks if risk.text.startswith("host memory")]
    # 16 bytes a parameter for the optimizer, 2 for itself, and half as much again.
    assert risk.share == pytest.approx(8.122e9 * 18 * 1.5 / 128e9, rel=1e-3)
    assert "219 GB on its hosts, of 128 GB asked for" in risk.text
    assert not any("host memory" in risk.text for risk in estimate(paper).risks)


@pytest.mark.slow
def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = ["plan", "--cluster", "config/cluster.yaml"]  # of the paper's run
    text = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    # Where figures have changed, the page takes over what the command prints.
    assert text in (ROOT / "docs/RELIABILITY.md").read_text("utf-8")
    assert "\nlargest risk: wall time: train takes " in text
    assert "so its figures decide; time a few of its jobs first\n" in text
    assert "boxes, s a scene: 3" in text
    said = CliRunner().invoke(app, [*command, "--run", "3drs", "--json"], catch_exceptions=False)
    values = json.loads(said.stdout)
    assert {one["stage"]: one["jobs"] for one in values["stages"]}["models"] == 2
    tiny = [*command[:3], "--configfile", "config/config.yaml"]
    with pytest.raises(ConfigError, match=r"size mini has no measured figures; .*paper\.yaml"):
        CliRunner().invoke(app, tiny, catch_exceptions=False)


def test_a_cluster_says_the_gpus_of_a_run_itself() -> None:
    command = ["plan", "--cluster", "mine.yaml", "--gpus", "3"]
    with pytest.raises(ConfigError, match=r"leave --gpus out, or set needs: {train: {gpu: 3}} in"):
        CliRunner().invoke(app, command, catch_exceptions=False)


@pytest.mark.parametrize("kind", GPUS)
def test_every_kind_of_gpu_can_be_typed(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "cluster.yaml"
    text = (ROOT / "config/cluster.yaml").read_text()
    file.write_text(re.sub(r"^gpu: \w+", f"gpu: {kind}", text, flags=re.MULTILINE))
    assert read_cluster(file).gpu == kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "V100"}, "gpu is 'V100'; choose one of: A100, H100, H200, L40S, RTX4090"),
        ({"nodes": 0}, "nodes: 0 is less than the minimum of 1"),
        ({"nodes": None}, "nodes: None is not of type 'integer'"),
        ({"nodes": True}, "nodes: True is not of type 'integer'"),
        ({"disk": -1}, "disk: -1 is less than or equal to the minimum of 0"),
        ({"gpus": 8}, r"gpus is not a key; did you mean gpu\?"),
        ({"needs": 3}, "needs: 3 is not of type 'object'"),
        ({"needs": {"train": {"gpus": 1}}}, r"needs\.train\.gpus is not a key; did you mean gpu\?"),
        ({"needs": {"train": {"gpu": -1}}}, r"needs\.train\.gpu: -1 is less than the minimum of 0"),
    ],
)
def test_a_wrong_cluster_file_is_said(tmp_path: Path, change: dict, message: str) -> None:
    content = yaml.safe_load((ROOT / "config/cluster.yaml").read_text()) | change
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message) as caught:
        read_cluster(file)
    assert str(file) in str(caught.value)


def test_an_unreadable_cluster_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: [")
    with pytest.raises(ConfigError, match=r"cluster\.yaml: is not YAML"):
        read_cluster(file)
    file.write_text("nodes: 1")
    with pytest.raises(ConfigError, match=r"cluster\.yaml: 'cpus_per_node' is a required property"):
        read_cluster(file)


def test_needs_that_cannot_be(paper: Workload) -> None:
    with pytest.raises(ConfigError, match=r"needs\.trian is not a rule; choose one of: boxes"):
        estimate(on(paper, needs={"trian": {"gpu": 1}}))
    with pytest.raises(ConfigError, match=r"train asks for 1 nodes of {'gpu': 8,"):
        estimate(on(paper, gpus_per_node=4))
    with pytest.raises(ConfigError, match="global_batch"):
        estimate(on(paper, needs={"train": {"gpu": 3}}))
