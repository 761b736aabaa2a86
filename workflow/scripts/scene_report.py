"""Rule scene_report: the page on all scenes, and the table of what each scan has."""

from pathlib import Path

from threedrs.inputs.scene_sources import scan_table
from threedrs.io.files import write_json
from threedrs.scannet.layout import DataLayout
from threedrs.scenes.report import write_scene_report
from threedrs.teachers.feature_shards import frames_of_imports
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], "scene_report"):
    layout = DataLayout(
        **snakemake.params.data, root=snakemake.params.root, boxes=snakemake.params.boxes
    )
    table = scan_table(layout, snakemake.params.scenes, snakemake.params.stride)
    write_json(Path(snakemake.output.sources), table)
    features = [Path(manifest).parent for manifest in snakemake.input.features]
    notes, counts = frames_of_imports(features, snakemake.params.other_frames)
    parts = [Path(part) for part in snakemake.input.parts]
    write_scene_report(parts, Path(snakemake.output.page), notes=notes, counts=counts)
