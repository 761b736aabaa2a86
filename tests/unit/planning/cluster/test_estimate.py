"""The plan of a whole run: its jobs are the Snakefile's, its figures those of RESULTS.md."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.testing import CliRunner

from fixtures.repository import ROOT
from threedrs.cli import app
from threedrs.cli.plan import _configuration
from threedrs.errors import ConfigError, DataError
from threedrs.planning.cluster.estimate import Estimate, estimate
from threedrs.planning.cluster.figures import MEASURED, SAMPLES, figure
from threedrs.planning.cluster.jobs import workflow_jobs
from threedrs.planning.cluster.runs import training_plans
from threedrs.planning.cluster.settings import Cluster, read_cluster
from threedrs.planning.cluster.workload import RULES, Workload
from threedrs.planning.training import PAPER_SAMPLES

TARGETS = {"all", "scenes", "features", "instructions", "models", "scores", "report"}
CLUSTER = Cluster(
    nodes=2, cpus_per_node=128, gpus_per_node=8, gpu="H100", storage_rate=5.0, disk=20e3
)


@pytest.fixture(scope="module")
def paper() -> Workload:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config, teachers = _configuration([Path("config/paper.yaml")])
    config["train"]["deepspeed"] = str(ROOT / config["train"]["deepspeed"])
    config["data"]["root"] = "no such folder"
    return Workload(config=config, teachers=teachers, cluster=CLUSTER)


def on(work: Workload, **changes) -> Workload:
    return dataclasses.replace(work, cluster=dataclasses.replace(work.cluster, **changes))


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


def closure(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    while True:
        more = edges | {(a, d) for a, b in edges for c, d in edges if b == c}
        if more == edges:
            return edges
        edges = more


@pytest.mark.slow
def test_jobs_are_those_of_the_snakefile(tmp_path: Path, paper: Workload) -> None:
    """A generated ScanNet of 70 scenes: the same jobs of each rule, the same dependencies."""
    benchmark, folder = scale(), tmp_path / "checkout"
    benchmark.write_checkout(folder, benchmark.configuration("base"), {"train": 60, "val": 10})
    real = benchmark.dry_run(folder, "all")["jobs"]
    config = paper.config | {"data": paper.config["data"] | {"root": str(folder / "data")}}
    work = Workload(config=config, teachers=paper.teachers, cluster=CLUSTER)
    jobs = workflow_jobs(work, training_plans(work))
    ours: dict[str, int] = {}
    for job in jobs:
        ours[job.rule] = ours.get(job.rule, 0) + 1
    assert ours == {rule: count for rule, count in real.items() if rule not in ("all", "total")}
    assert len({job.name for job in jobs}) == len(jobs)

    graph = benchmark.snakemake(folder, "all", "--rulegraph")["said"]
    label = {}
    theirs = set()
    for line in graph.splitlines():
        if "label" in line:
            label[line.split("[")[0].strip()] = line.split('label = "')[1].split('"')[0]
    for line in graph.splitlines():
        if "->" in line:
            first, _, second = line.strip().strip(";").partition(" -> ")
            theirs.add((label[first], label[second.split()[0]]))
    rule = {job.name: job.rule for job in jobs}
    edges = {(rule[name], job.rule) for job in jobs for name in job.after}
    assert closure(edges) == {edge for edge in closure(theirs) if edge[1] != "all"}


@pytest.mark.slow
def test_rules_are_those_of_the_snakefile() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "snakemake", "--list-rules"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert set(said.stdout.split()) - TARGETS - {"demo_data"} == set(RULES)


def test_measured_figures_stand_in_the_results() -> None:
    sections = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8").split("\n## ")
    of_heading = {section.partition("\n")[0]: section for section in sections}
    for name, one in MEASURED.items():
        for text in one.written:
            assert text in of_heading[one.heading], (name, text)
    assert SAMPLES == PAPER_SAMPLES


def stage(found: Estimate, rule: str):
    return next(stage for stage in found.stages if stage.rule == rule)


@pytest.mark.slow
def test_the_papers_run_by_hand(paper: Workload) -> None:
    found = estimate(paper)
    train = stage(found, "train")
    plans = training_plans(paper)
    start = figure("start of a job, CPU s") + figure("queue, s a job")
    # 28 checkpoints (every 500 steps, and the last) of 12 bytes a parameter written and read again,
    # a model of 2 bytes a parameter read and written.
    checkpoint, model = 12 * 8.1227, 2 * 8.1227
    stops = figure("start of training, s") + (28 * 2 * checkpoint + 2 * model) / 5
    steps = 13946
    seconds = [start + stops + plan.seconds_a_step * steps for plan in plans.values()]
    assert train.gpu_hours == pytest.approx(8 * sum(seconds) / 3600)
    pixels, features = steps * 16 * 0.0142, steps * 16 * 0.0257
    assert train.read == pytest.approx(2 * pixels + features + 2 * (model + 28 * checkpoint))
    assert (train.kept, train.checkpoints) == pytest.approx((2 * model, 4 * checkpoint))
    assert stage(found, "extract_features").jobs == 25
    assert stage(found, "predict").start >= train.start + min(seconds) / 3600 - 1e-6
    assert found.hours >= max(seconds) / 3600
    assert found.disk_peak > found.disk_peak_pruned - 1e-6
    assert "train takes" in found.risks[0].text
    assert found.risks[0].share == pytest.approx((train.end - train.start) / found.hours)
    assert found.risks[0].share < 1


def test_predictions_share_their_scenes_out_to_their_gpus(paper: Workload) -> None:
    plans = training_plans(paper)
    seconds = []
    for gpus in (1, 4):
        jobs = workflow_jobs(on(paper, needs={"predict": {"gpu": gpus}}), plans)
        seconds.append(next(job for job in jobs if job.name == "predict/3drs/scan2cap").seconds)
    start = figure("start of a job, CPU s") + figure("queue, s a job")
    start += figure("start of prediction, s") + figure("model, GB") / 5
    assert seconds[0] - start == pytest.approx(4 * (seconds[1] - start))


def test_the_last_step_saves_as_well(paper: Workload) -> None:
    train = {**paper.config["train"], "max_steps": 600, "save_every": 500, "keep": 2}
    work = dataclasses.replace(paper, config=paper.config | {"train": train})
    jobs = workflow_jobs(work, training_plans(work))
    assert {job.checkpoints for job in jobs if job.rule == "train"} == {2 * 12 * 8.1227}


@pytest.mark.slow
def test_more_is_never_slower(paper: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [
        estimate(on(paper, gpus_per_node=count, needs={"train": {"gpu": count}})).hours
        for count in (1, 4, 8)
    ]
    assert gpus == sorted(gpus, reverse=True)
    plans = training_plans(paper)
    monkeypatch.setattr("threedrs.planning.cluster.estimate.training_plans", lambda work: plans)
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
        ({"time_limit": 4}, r"time limit: train/.* of 4\.0 h; it saves before the limit"),
        ({"disk": 500}, r"disk: .* TB at most, 0\.5 TB free; remove each run's checkpoints"),
        ({"storage_rate": 0.2}, r"shared storage: at 0\.2 GB/s, busy for .*; raise train\.pack"),
    ],
)
def test_the_largest_risk_is_named(paper: Workload, changes: dict, words: str) -> None:
    risk = estimate(on(paper, **changes)).risks[0]
    assert re.search(words, f"{risk.text}; {risk.remedy}")


@pytest.mark.slow
def test_offload_needs_the_memory_of_the_hosts(paper: Workload) -> None:
    file = str(ROOT / "config/deepspeed/zero3_offload.json")
    config = {**paper.config, "train": paper.config["train"] | {"deepspeed": file}}
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
    command = ["plan", "--cluster", "config/cluster.yaml", "--configfile", "config/paper.yaml"]
    text = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert "2 nodes x 8 H100, 128 cores, storage 5 GB/s, 20 TB free" in text
    assert "\nlargest risk: wall time: train takes " in text
    assert "so its figures decide; time a few of its jobs first\n" in text
    assert "boxes, s a scene: 3" in text
    said = CliRunner().invoke(app, [*command, "--run", "3drs", "--json"], catch_exceptions=False)
    values = json.loads(said.stdout)
    assert {one["rule"]: one["jobs"] for one in values["stages"]}["train"] == 1
    with pytest.raises(ConfigError, match=r"size tiny has no measured figures; .*paper\.yaml"):
        CliRunner().invoke(app, command[:3], catch_exceptions=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "V100"}, "choose one of: H100, H200, A100"),
        ({"nodes": 0}, "nodes: 0 is no whole number from 1 on"),
        ({"nodes": None}, "nodes: None is no whole number"),
        ({"disk": -1}, "disk: -1 is no number above 0"),
        ({"gpus": 8}, "gpus is not a key; valid keys: nodes, cpus_per_node"),
        ({"needs": 3}, "needs: is no table of rules"),
        ({"needs": {"train": {"gpus": 1}}}, r"needs\.train\.gpus is not a key; choose one of: gpu"),
        ({"needs": {"train": {"gpu": -1}}}, r"needs\.train\.gpu: -1 is no whole number from 0"),
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
    with pytest.raises(DataError, match=r"cluster\.yaml: is not YAML"):
        read_cluster(file)
    file.write_text("nodes: 1")
    with pytest.raises(ConfigError, match=r"cpus_per_node, gpus_per_node, gpu, .* missing"):
        read_cluster(file)


def test_needs_that_cannot_be(paper: Workload) -> None:
    with pytest.raises(ConfigError, match=r"needs\.trian is no rule; choose one of: boxes"):
        estimate(on(paper, needs={"trian": {"gpu": 1}}))
    with pytest.raises(ConfigError, match=r"train asks for 1 x \(8 GPUs"):
        estimate(on(paper, gpus_per_node=4))
    with pytest.raises(ConfigError, match="global_batch"):
        estimate(on(paper, needs={"train": {"gpu": 3}}))
