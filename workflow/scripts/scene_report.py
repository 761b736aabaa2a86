"""Rule scene_report: the page on all scenes, and the table of what each scan has."""

from pathlib import Path

from threedrs.config.load import data_layout
from threedrs.inputs.ready_files import Ready
from threedrs.inputs.scene_sources import scan_table
from threedrs.io.files import write_json
from threedrs.scenes.report import write_scene_report
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], "scene_report"):
    layout = data_layout({"data": snakemake.params.data})
    ready = Ready(**snakemake.params.ready)
    table = scan_table(layout, snakemake.params.scenes, ready, snakemake.params.stride)
    write_json(Path(snakemake.output.sources), table)
    write_scene_report([Path(part) for part in snakemake.input.parts], Path(snakemake.output.page))
