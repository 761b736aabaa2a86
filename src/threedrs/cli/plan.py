"""``threedrs plan``: what a training needs of its GPUs, or what the whole workflow takes."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threedrs.cli import shared
from threedrs.cli.names import completion, configured_runs
from threedrs.config.resources import GPUS
from threedrs.errors import ConfigError, choose_one
from threedrs.workflow.processes import quick_imports

if TYPE_CHECKING:
    from threedrs.planning.training import Machine

PAPER, PAPERS_RUN = Path("config/paper.yaml"), "3drs"
RunName = Annotated[
    str | None,
    typer.Option(
        help="Only this run of the configuration.", autocompletion=completion(configured_runs)
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option(help="GPUs of a run; without it 8, or as many as its batch divides among."),
]
Gpu = Annotated[
    str,
    typer.Option(
        help=f"Kind of GPU: {', '.join(GPUS)}.", autocompletion=completion(lambda: [*GPUS])
    ),
]
Peak = Annotated[
    float | None, typer.Option(help="Dense bfloat16 TFLOP/s of a GPU; without it as --gpu has.")
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1, help="Samples of an epoch; without it those of the demo's mix, or the paper's."
    ),
]
ClusterFile = Annotated[
    Path | None,
    typer.Option(help="A cluster (config/cluster.yaml): plan every stage, not one training."),
]
GpuMemory = Annotated[
    float | None, typer.Option(help="Memory of a GPU in GB; without it as --gpu has.")
]
Utilisation = Annotated[
    float | None,
    typer.Option(help="Share of the peak that training reaches; without it as measured."),
]


def plan(
    configfile: shared.ConfigFiles = None,
    values: shared.ConfigValues = None,
    run: RunName = None,
    gpus: Gpus = None,
    gpu: Gpu = "H100",
    gpu_memory: GpuMemory = None,
    peak: Peak = None,
    samples: Samples = None,
    utilisation: Utilisation = None,
    cluster: ClusterFile = None,
    as_json: shared.AsJson = False,
) -> None:
    """Estimate memory and time of training.

    Call it in the repository's folder. Without a configuration it is the paper's run
    (config/paper.yaml). Where something does not fit the GPUs, it says what would, and the status
    is 1. With --cluster it prints jobs, GPU hours, disk and wall time of every stage, and the
    largest risk. GPUs and their kind then come from that file.
    """
    from threedrs.config.load import resolve_run

    if cluster is not None and gpus is not None:
        raise ConfigError(
            f"--gpus {gpus}: with --cluster a run has the GPUs that the cluster's file gives it; "
            f"leave --gpus out, or set needs: {{train: {{gpu: {gpus}}}}} in {cluster}"
        )
    kind = _kind_of_gpu(gpu)
    if not configfile and not values:
        configfile = [PAPER]
        run = run or (None if cluster else PAPERS_RUN)
    study = _read_study(configfile or [], values or [])
    planned = _planned_runs(study, run)
    if cluster is not None:
        _print_cluster_plan({**study, "runs": planned}, study, cluster, as_json)
        return

    with shared.progress() as show:
        show("loading torch")
        with quick_imports():
            from threedrs.planning.estimate import seeds_of_study
            from threedrs.planning.training import Machine, usual_gpus

        plans = {}
        for name in planned:
            sections = resolve_run(study, name)
            machine = Machine(
                gpus=usual_gpus(sections) if gpus is None else gpus,
                memory=(GPUS[kind][1] if gpu_memory is None else gpu_memory) * 1e9,
                peak=GPUS[kind][0] if peak is None else peak * 1e12,
                utilisation=utilisation,
            )
            show(f"run {name}")
            demo = bool(study["data"]["demo"])
            plans[name] = _training_facts(sections, machine, samples, demo=demo)
    lines = [line for name, facts in plans.items() for line in _plan_lines(name, facts)]
    shared.report(plans, as_json, *lines, seeds_of_study(study))
    if not all(facts["fits"] for facts in plans.values()):
        raise typer.Exit(1)


def _read_study(configfile: list[Path], values: list[str]) -> dict[str, Any]:
    from threedrs.config.load import load_config
    from threedrs.config.yaml_files import merged, parse_values

    # The plan comes before data and checkpoints are fetched.
    return load_config(merged(configfile, "plan", parse_values(values)), files=False)


def _kind_of_gpu(typed: str) -> str:
    kind = {name.lower(): name for name in GPUS}.get(typed.lower())
    if kind is None:
        raise ConfigError(f"--gpu {typed}: {choose_one(typed.upper(), GPUS)}")
    return kind


def _planned_runs(study: dict[str, Any], run: str | None) -> dict[str, Any]:
    """Return the runs of a configuration that are trained, or the one that is asked for."""
    from threedrs.inputs.required_files import trained_runs

    trained = trained_runs(study)
    if run is not None and run not in trained:
        raise ConfigError(f"--run {run} is not trained; {choose_one(run, trained)}")
    return {name: study["runs"][name] for name in trained if run in (None, name)}


def _training_facts(
    resolved: dict[str, Any], machine: "Machine", samples: int | None, *, demo: bool
) -> dict[str, Any]:
    """Return the estimate of a run, beside what it is for; all memory in bytes."""
    from threedrs.planning.disk import channels_of
    from threedrs.planning.remedies import what_fits
    from threedrs.planning.training import PAPER_SAMPLES, plan_run
    from threedrs.teachers.known_teachers import NO_TEACHER, get_teacher

    source, teacher = "--samples", resolved["teacher"]["name"]
    mix = Path(f"results/instructions/mixes/{resolved['train']['mix']}.jsonl")
    # Only the demo's own mix: what lies here may be of another configuration.
    if samples is None and demo and mix.is_file():
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
    sizes = {"teacher_channels": channels, "samples": samples}
    found = plan_run(resolved, machine, **sizes)
    fits = found.total <= machine.memory
    return {
        "gpus": machine.gpus,
        "gpu_memory": machine.memory,
        "fits": fits,
        "would_fit": [] if fits else what_fits(resolved, machine, found, **sizes),
        "total": found.total,
        **asdict(found),
        "samples": samples,
        "samples_from": source,
        "note": note,
    }


def _print_cluster_plan(config: dict, study: dict, file: Path, as_json: bool) -> None:
    import pandas as pd

    from threedrs.planning.cluster import read_cluster
    from threedrs.planning.estimate import estimate, seeds_of_study
    from threedrs.planning.stage_costs import ASSUMED
    from threedrs.planning.workflow_steps import Workload

    cluster = read_cluster(file)
    found = estimate(Workload(config=config, cluster=cluster))
    over = [risk for risk in found.risks if risk.stops and risk.share > 1]
    if as_json:
        shared.report({"cluster": cluster.model_dump(), **asdict(found)}, as_json)
        raise typer.Exit(bool(over))
    shared.say(
        f"{cluster.nodes} nodes x {cluster.gpus_per_node} {cluster.gpu}, {cluster.cpus_per_node} "
        f"cores, storage {cluster.storage_rate:g} GB/s, {cluster.disk / 1000:g} TB free"
    )
    stages = pd.DataFrame(found.stages).set_index("stage")
    stages.loc["together"] = stages.sum()
    formatters = {
        "jobs": "{:.0f}".format,
        "GPU h": "{:,.1f}".format,
        "stays GB": "{:,.0f}".format,
        "wall h": "{:.2f}".format,
    }
    stages.columns = pd.Index([*formatters])
    print(stages.rename_axis(None).to_string(formatters=formatters))
    first, *others = found.risks
    assumed = "; ".join(f"{name}: {value:.3g}" for name, (value, _) in ASSUMED.items())
    shared.say(
        f"wall time {found.hours:.1f} h ({found.hours / 24:.1f} days)",
        f"disk at most {found.disk_peak / 1000:.2f} TB, of which checkpoints "
        f"{found.checkpoints / 1000:.2f} TB that may be removed once a run is trained (then at "
        f"most {found.disk_peak_pruned / 1000:.2f} TB at a time)",
        f"largest risk: {first.text}; {first.remedy}",
    )
    for risk in others:
        shared.say(f"then: {risk.text}" + (f"; {risk.remedy}" if risk.is_near else ""))
    shared.say(seeds_of_study(study), f"figures: benchmarks/RESULTS.md; not measured are {assumed}")
    if over:
        raise typer.Exit(1)


def _plan_lines(name: str, facts: dict[str, Any]) -> list[str]:
    """Return a run's estimate in lines."""
    lines = [
        f"{name}: {facts['parameters'] / 1e9:.2f} billion parameters, {facts['gpus']} GPU"
        f"{'s' * (facts['gpus'] > 1)} of {facts['gpu_memory'] / 1e9:g} GB"
    ]
    parts = [*facts["memory"].items(), ("together", facts["total"])]
    lines += [f"  {part:20}{size / 1e9:8.2f} GB" for part, size in parts]
    lines[-1] += ": fits" if facts["fits"] else ": does NOT fit"
    if facts["memory"]["gathered parameters"]:
        lines.append(
            "  not counted: what ZeRO-3 copies for its update, 4 to 6 GB at 7B, after the "
            "activations are gone"
        )
    if facts["memory"]["update"]:
        lines.append("  the part of the update is computed and was never measured")
    if facts["host_memory"]:
        hosts = f"{facts['host_memory'] / 1e9:8.2f} GB; their work is not in the time"
        lines.append(f"  {'hosts, offloaded':20}{hosts}")
    kept, most = facts["kept_layers"], facts["most_kept_layers"]
    if facts["fits"] and kept is not None:
        lines.append(f"  {kept} of {facts['layers']} layers keep their activations")
        if most is not None and most > kept:
            lines[-1] += f"; execution.kept_layers may be {most} (faster)"
    lines += [f"  would fit: {change}" for change in facts["would_fit"]]
    if not facts["fits"] and not facts["would_fit"]:
        lines.append("  nothing that was tried fits; take a smaller model.size")
    lines.append(
        f"  epoch: {facts['samples']} samples ({facts['samples_from']}), "
        f"{facts['steps_an_epoch']} steps of {facts['seconds_a_step']:.2f} s, "
        f"{facts['hours_an_epoch']:.1f} h at {facts['utilisation']:.0%} utilisation"
    )
    if facts["note"]:
        lines.append(f"  note: {facts['note']}")
    return lines
