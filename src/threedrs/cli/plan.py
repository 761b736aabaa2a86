"""``threedrs plan``: does a training run fit these GPUs, how long is an epoch, or everything?"""

import copy
import json
from pathlib import Path
from typing import Annotated

import typer


def plan(
    configfile: Annotated[
        list[Path] | None,
        typer.Option("--configfile", help="Configuration on top of config/config.yaml."),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Only this run of the configuration.")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of the run.")] = 8,
    gpu_memory: Annotated[float, typer.Option(help="Memory of a GPU in GB.")] = 80.0,
    peak: Annotated[
        float, typer.Option(help="Dense bfloat16 TFLOP/s of a GPU (H100, H200: 989; A100: 312).")
    ] = 989.0,
    samples: Annotated[
        int | None, typer.Option(help="Of an epoch; default: the demo's mix, or the paper's.")
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(help="Model FLOPs utilisation to reckon with; default: as measured."),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="A cluster (config/cluster.yaml): plan every stage, not one training."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Estimate memory and time of training; run it from the repository's folder.

    With --cluster: jobs, hours, disk and network of every stage, wall time, and the largest risk;
    GPUs and their kind then come from that file.
    """
    from threedrs.config.load import resolve_run
    from threedrs.errors import ConfigError
    from threedrs.planning.disk import channels_of
    from threedrs.planning.training import PAPER_SAMPLES, Machine, plan_run
    from threedrs.teachers.registry import TEACHERS

    config, teachers = _configuration(configfile or [])
    if run is not None and run not in config["runs"]:
        raise ConfigError(f"--run {run} is no run; choose one of: {', '.join(config['runs'])}")
    if cluster is not None:
        if run is not None:
            config["runs"] = {run: config["runs"][run]}
        _print_cluster_plan(config, teachers, cluster, as_json)
        return
    machine = Machine(gpus=gpus, memory=gpu_memory * 1e9, peak=peak * 1e12, utilisation=utilisation)
    plans = {}
    for name in [run] if run else config["runs"]:
        resolved = resolve_run(config, name)
        count, source = samples, "--samples"
        mix = Path(f"results/instructions/mixes/{resolved['train']['mix']}.jsonl")
        if count is None and config["data"]["demo"] and mix.is_file():
            with mix.open(encoding="utf-8") as stream:
                count, source = sum(1 for _ in stream), str(mix)
        if count is None:
            count, source = PAPER_SAMPLES, "the paper's mix"
        teacher = teachers[name]
        channels = channels_of(teacher)
        assumed = teacher in TEACHERS and TEACHERS[teacher].channels is None
        found = plan_run(resolved, machine, teacher_channels=channels, samples=count)
        plans[name] = {
            "parameters": found.parameters,
            "tokens_of_a_pack": found.tokens,
            "gigabytes_a_gpu": {part: round(b / 1e9, 2) for part, b in found.memory.items()},
            "gigabytes_a_gpu_total": round(found.total / 1e9, 2),
            "gigabytes_of_the_hosts": round(found.host_memory / 1e9, 2),
            "fits": found.total <= machine.memory,
            "most_kept_layers": found.most_kept_layers,
            "samples": count,
            "samples_from": source,
            "optimizer_steps": found.steps_an_epoch,
            "seconds_a_step": round(found.seconds_a_step, 3),
            "hours_an_epoch": round(found.hours_an_epoch, 2),
            "utilisation": round(found.utilisation, 4),
            "note": f"teacher {teacher}: {channels} channels are reckoned with, VGGT's; the files' "
            "own are known once features are extracted"
            if assumed
            else None,
        }
    if as_json:
        print(json.dumps(plans, indent=2))
        return
    for name, facts in plans.items():
        _print_plan(name, facts, gpus, gpu_memory)


def _configuration(configfiles: list[Path]) -> tuple[dict, dict[str, str]]:
    """Return the configuration as far as a plan needs it, and the teacher of each run."""
    from threedrs.cli.configfiles import merged_configuration
    from threedrs.config.load import load_config
    from threedrs.teachers.registry import TEACHERS

    asked = merged_configuration(configfiles, "plan")
    config = copy.deepcopy(asked)
    runs = config.get("runs")
    # The plan comes before checkpoints are fetched: nobody asks where they are. What is not of the
    # right kind is left for the check to name.
    for section in (config, *(runs.values() if isinstance(runs, dict) else ())):
        if not isinstance(section, dict):
            continue
        model, teacher = section.get("model"), section.get("teacher")
        if isinstance(model, dict):
            model |= {"path": None, "random_weights": True}
        if isinstance(teacher, dict) and teacher.get("name") in [*TEACHERS]:
            teacher["name"] = "none"
    checked = load_config(config, Path("workflow/schemas/config.schema.yaml"))
    usual = asked["teacher"]["name"]
    teachers = {
        run: part.get("teacher", {}).get("name", usual) for run, part in asked["runs"].items()
    }
    return checked, teachers


def _print_cluster_plan(config: dict, teachers: dict, file: Path, as_json: bool) -> None:
    from threedrs.planning.cluster.estimate import estimate
    from threedrs.planning.cluster.settings import read_cluster
    from threedrs.planning.cluster.table import as_text, as_values
    from threedrs.planning.cluster.workload import Workload

    cluster = read_cluster(file)
    used = {run: teachers[run] for run in config["runs"]}
    found = estimate(Workload(config=config, teachers=used, cluster=cluster))
    print(json.dumps(as_values(found, cluster), indent=2) if as_json else as_text(found, cluster))


def _print_plan(name: str, facts: dict, gpus: int, gpu_memory: float) -> None:
    verdict = "fits" if facts["fits"] else "does NOT fit"
    print(f"{name}: {facts['parameters'] / 1e9:.2f} billion parameters, {gpus} GPUs")
    for part, gigabytes in facts["gigabytes_a_gpu"].items():
        print(f"  {part:22}{gigabytes:9.2f} GB a GPU")
    print(f"  {'together':22}{facts['gigabytes_a_gpu_total']:9.2f} GB: {verdict} {gpu_memory:g} GB")
    if facts["gigabytes_of_the_hosts"]:
        hosts = facts["gigabytes_of_the_hosts"]
        print(f"  {'all hosts, offloaded':22}{hosts:9.2f} GB; their work is not in the time below")
    if facts["fits"] and facts["most_kept_layers"] is not None:
        print(f"  train.kept_layers may be {facts['most_kept_layers']} (faster)")
    print(
        f"  epoch: {facts['samples']} samples ({facts['samples_from']}), "
        f"{facts['optimizer_steps']} steps of {facts['seconds_a_step']:.2f} s, "
        f"{facts['hours_an_epoch']:.1f} h at {facts['utilisation']:.0%} utilisation"
    )
    if facts["note"]:
        print(f"  note: {facts['note']}")
