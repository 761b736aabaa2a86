"""The plan as text and as JSON values."""

from dataclasses import asdict
from typing import Any

from threedrs.planning.cluster.estimate import NEAR, Estimate, Risk, Stage
from threedrs.planning.cluster.figures import ASSUMED
from threedrs.planning.cluster.settings import Cluster

HEAD = ("stage", "jobs", "core h", "GPU h", "read GB", "written GB", "stays GB", "from h", "to h")


def _row(stage: Stage) -> list[str]:
    return [
        stage.rule,
        str(stage.jobs),
        f"{stage.core_hours:,.1f}",
        f"{stage.gpu_hours:,.1f}",
        f"{stage.read:,.0f}",
        f"{stage.written:,.0f}",
        f"{stage.kept + stage.checkpoints:,.0f}",
        f"{stage.start:.1f}",
        f"{stage.end:.1f}",
    ]


def _risk(risk: Risk) -> str:
    return f"{risk.text}; {risk.remedy}" if risk.share >= NEAR else risk.text


def as_text(found: Estimate, cluster: Cluster) -> str:
    """Return the plan as a table, a summary, and the largest risk first."""
    stages = found.stages
    together = ["together", str(sum(stage.jobs for stage in stages))]
    for name in ("core_hours", "gpu_hours"):
        together.append(f"{sum(getattr(stage, name) for stage in stages):,.1f}")
    for total in (
        sum(stage.read for stage in stages),
        sum(stage.written for stage in stages),
        sum(stage.kept + stage.checkpoints for stage in stages),
    ):
        together.append(f"{total:,.0f}")
    together += ["0.0", f"{found.hours:.1f}"]
    rows = [list(HEAD), *map(_row, stages), together]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        f"{cluster.nodes} nodes x {cluster.gpus_per_node} {cluster.gpu}, {cluster.cpus_per_node} "
        f"cores, storage {cluster.storage_rate:g} GB/s, {cluster.disk / 1000:g} TB free"
    ]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    checkpoints = sum(stage.checkpoints for stage in stages)
    lines += [
        f"wall time {found.hours:.1f} h ({found.hours / 24:.1f} days), GPUs busy "
        f"{found.gpus_busy:.0%}",
        f"disk at most {found.disk_peak / 1000:.2f} TB, of which checkpoints "
        f"{checkpoints / 1000:.2f} TB that may be removed once a run is trained (then at most "
        f"{found.disk_peak_pruned / 1000:.2f} TB at a time)",
        f"largest risk: {found.risks[0].text}; {found.risks[0].remedy}",
        *("then: " + _risk(risk) for risk in found.risks[1:]),
        "figures: benchmarks/RESULTS.md; not measured are "
        + "; ".join(f"{name}: {one.value:.3g}" for name, one in ASSUMED.items()),
    ]
    return "\n".join(lines)


def as_values(found: Estimate, cluster: Cluster) -> dict[str, Any]:
    """Return the plan as JSON values."""
    return {"cluster": asdict(cluster), **asdict(found)}
