"""``threedrs plan``: what a training needs of its GPUs, or what the whole workflow takes."""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threedrs.cli.shared import ConfigFiles, ConfigValues, console, table

if TYPE_CHECKING:
    from threedrs.planning.training import Machine


def plan(
    configfile: ConfigFiles = None,
    values: ConfigValues = None,
    run: Annotated[str | None, typer.Option(help="Only this run of the configuration.")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(help="GPUs of a run; without it 8, or as many as its batch divides among."),
    ] = None,
    gpu_memory: Annotated[float, typer.Option(help="Memory of a GPU in GB.")] = 80.0,
    peak: Annotated[
        float, typer.Option(help="Dense bfloat16 TFLOP/s of a GPU (H100, H200: 989; A100: 312).")
    ] = 989.0,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Samples of an epoch; without it those of the demo's mix, or the paper's."
        ),
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(help="Share of the peak that training reaches; without it as measured."),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="A cluster (config/cluster.yaml): plan every stage, not one training."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Estimate memory and time of training; run it from the repository's folder.

    With --cluster it prints jobs, GPU hours, disk and wall time of every stage, and the largest
    risk. GPUs and their kind then come from that file.
    """
    from threedrs.config.load import resolve_run
    from threedrs.errors import ConfigError, choose_one
    from threedrs.inputs.required_files import trained_runs
    from threedrs.planning.estimate import seeds_of_study
    from threedrs.planning.training import Machine, usual_gpus

    config, study, teachers = _configuration(configfile or [], values or [])
    trained = trained_runs(config)
    if run is not None:
        if run not in trained:
            raise ConfigError(f"--run {run} is not trained; {choose_one(run, trained)}")
        config["runs"] = {run: config["runs"][run]}
    if cluster is not None:
        _print_cluster_plan(config, study, teachers, cluster, as_json)
        return
    plans = {}
    for name in trained_runs(config):
        machine = Machine(
            gpus=usual_gpus(resolve_run(config, name)) if gpus is None else gpus,
            memory=gpu_memory * 1e9,
            peak=peak * 1e12,
            utilisation=utilisation,
        )
        plans[name] = _training_facts(config, name, teachers[name], machine, samples)
    if as_json:
        print(json.dumps(plans, indent=2))
        return
    for name, facts in plans.items():
        _print_plan(name, facts, gpu_memory)
    print(seeds_of_study(study))


def _training_facts(
    config: dict, run: str, teacher: str, machine: "Machine", samples: int | None
) -> dict[str, Any]:
    from threedrs.config.load import resolve_run
    from threedrs.planning.disk import channels_of
    from threedrs.planning.training import PAPER_SAMPLES, plan_run
    from threedrs.teachers.known_teachers import NO_TEACHER, get_teacher

    resolved, source = resolve_run(config, run), "--samples"
    mix = Path(f"results/instructions/mixes/{resolved['train']['mix']}.jsonl")
    # Only the demo's own mix: what lies here may be of another configuration.
    if samples is None and config["data"]["demo"] and mix.is_file():
        with mix.open(encoding="utf-8") as stream:
            samples, source = sum(1 for _ in stream), str(mix)
    if samples is None:
        samples, source = PAPER_SAMPLES, "the paper's mix"
    channels, note = channels_of(teacher), None
    if teacher != NO_TEACHER and get_teacher(teacher).channels is None:
        note = (
            f"teacher {teacher}: {channels} channels are reckoned with, VGGT's; the files' own are "
            "known once features are extracted"
        )
    found = plan_run(resolved, machine, teacher_channels=channels, samples=samples)
    return {
        "gpus": machine.gpus,
        "parameters": found.parameters,
        "tokens_of_a_pack": found.tokens,
        "gigabytes_a_gpu": {part: round(b / 1e9, 2) for part, b in found.memory.items()},
        "gigabytes_a_gpu_total": round(found.total / 1e9, 2),
        "gigabytes_of_the_hosts": round(found.host_memory / 1e9, 2),
        "fits": found.total <= machine.memory,
        "most_kept_layers": found.most_kept_layers,
        "samples": samples,
        "samples_from": source,
        "optimizer_steps": found.steps_an_epoch,
        "seconds_a_step": round(found.seconds_a_step, 3),
        "hours_an_epoch": round(found.hours_an_epoch, 2),
        "utilisation": round(found.utilisation, 4),
        "note": note,
    }


def _configuration(configfiles: list[Path], values: list[str]) -> tuple[dict, dict, dict[str, str]]:
    """Return the configuration as far as a plan needs it, as it is, and each run's teacher."""
    from threedrs.config.load import check_config, load_config
    from threedrs.config.yaml_files import merged, parse_values
    from threedrs.teachers.known_teachers import TEACHERS

    asked = merged(configfiles, "plan", parse_values(values))
    config = copy.deepcopy(asked)
    runs = config.get("runs")
    # The plan comes before data and checkpoints are fetched, so their paths are not asked for.
    # Values of the wrong kind are left for the check to name.
    if isinstance(config.get("data"), dict):
        config["data"]["root"] = "."
    for section in (config, *(runs.values() if isinstance(runs, dict) else ())):
        if not isinstance(section, dict):
            continue
        model, teacher = section.get("model"), section.get("teacher")
        if "checkpoint" in section:
            section["checkpoint"] = "initial"
        if isinstance(model, dict):
            model |= {"path": None, "random_weights": True}
        if isinstance(teacher, dict) and teacher.get("name") in [*TEACHERS]:
            teacher["name"] = "none"
    checked = load_config(config)
    whole = check_config(asked)[0] or checked  # its files need not be there yet
    usual = whole["teacher"]["name"]
    teachers = {
        run: part.get("teacher", {}).get("name", usual) for run, part in whole["runs"].items()
    }
    return checked, whole, teachers


def _print_cluster_plan(
    config: dict, study: dict, teachers: dict, file: Path, as_json: bool
) -> None:
    from dataclasses import asdict

    from threedrs.inputs.required_files import trained_runs
    from threedrs.planning.cluster import Workload, read_cluster
    from threedrs.planning.estimate import estimate, seeds_of_study
    from threedrs.planning.stage_costs import ASSUMED

    cluster = read_cluster(file)
    used = {run: teachers[run] for run in trained_runs(config)}
    found = estimate(Workload(config=config, teachers=used, cluster=cluster))
    if as_json:
        print(json.dumps({"cluster": cluster.model_dump(), **asdict(found)}, indent=2))
        return
    say = console().print
    say(
        f"{cluster.nodes} nodes x {cluster.gpus_per_node} {cluster.gpu}, {cluster.cpus_per_node} "
        f"cores, storage {cluster.storage_rate:g} GB/s, {cluster.disk / 1000:g} TB free"
    )
    gpu_hours = sum(stage.gpu_hours for stage in found.stages)
    disk = sum(stage.disk for stage in found.stages)
    jobs = sum(stage.jobs for stage in found.stages)
    stages = [(one.stage, one.jobs, one.gpu_hours, one.disk, one.hours) for one in found.stages]
    stages.append(("together", jobs, gpu_hours, disk, found.hours))
    rows = [
        (name, str(jobs), f"{gpu_hours:,.1f}", f"{disk:,.0f}", f"{hours:.2f}")
        for name, jobs, gpu_hours, disk, hours in stages
    ]
    say(table(("stage", "jobs", "GPU h", "stays GB", "wall h"), rows))
    first, *others = found.risks
    assumed = "; ".join(f"{name}: {value:.3g}" for name, (value, _) in ASSUMED.items())
    say(
        f"wall time {found.hours:.1f} h ({found.hours / 24:.1f} days), GPUs busy "
        f"{found.gpus_busy:.0%}\n"
        f"disk at most {found.disk_peak / 1000:.2f} TB, of which checkpoints "
        f"{found.checkpoints / 1000:.2f} TB that may be removed once a run is trained (then at "
        f"most {found.disk_peak_pruned / 1000:.2f} TB at a time)\n"
        f"largest risk: {first.text}; {first.remedy}"
    )
    for risk in others:
        say(f"then: {risk.text}" + (f"; {risk.remedy}" if risk.is_near else ""))
    print(seeds_of_study(study))
    say(f"figures: benchmarks/RESULTS.md; not measured are {assumed}")


def _print_plan(name: str, facts: dict, gpu_memory: float) -> None:
    verdict, gpus = "fits" if facts["fits"] else "does NOT fit", facts["gpus"]
    said = f"{gpus} GPU{'s' * (gpus > 1)}"
    print(f"{name}: {facts['parameters'] / 1e9:.2f} billion parameters, {said}")
    for part, gigabytes in facts["gigabytes_a_gpu"].items():
        print(f"  {part:22}{gigabytes:9.2f} GB a GPU")
    print(f"  {'together':22}{facts['gigabytes_a_gpu_total']:9.2f} GB: {verdict} {gpu_memory:g} GB")
    if facts["gigabytes_of_the_hosts"]:
        hosts = facts["gigabytes_of_the_hosts"]
        print(f"  {'all hosts, offloaded':22}{hosts:9.2f} GB; their work is not in the time below")
    if facts["fits"] and facts["most_kept_layers"] is not None:
        print(f"  execution.kept_layers may be {facts['most_kept_layers']} (faster)")
    print(
        f"  epoch: {facts['samples']} samples ({facts['samples_from']}), "
        f"{facts['optimizer_steps']} steps of {facts['seconds_a_step']:.2f} s, "
        f"{facts['hours_an_epoch']:.1f} h at {facts['utilisation']:.0%} utilisation"
    )
    if facts["note"]:
        print(f"  note: {facts['note']}")
