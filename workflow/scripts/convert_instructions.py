"""Rule convert_instructions: one benchmark split's annotation files to records."""

from pathlib import Path

from threedrs.instructions.convert import convert, take_prepared
from threedrs.scannet.boxes import read_boxes_file
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.scannet.layout import DataLayout
from threedrs.workflow.job_log import job_log

name = f"{snakemake.wildcards.benchmark}_{snakemake.wildcards.split}"
with job_log(snakemake.log[0], f"convert_instructions {name}"):
    benchmark, split = snakemake.wildcards.benchmark, snakemake.wildcards.split
    out = Path(snakemake.output.records)
    layout = DataLayout(**snakemake.params.data, root=snakemake.params.root)
    boxes = {}
    for path in snakemake.input.boxes:
        boxes |= read_boxes_file(Path(path))
    policy = {
        "on_reject": snakemake.params.on_reject,
        "max_reject_fraction": snakemake.params.max_reject_fraction,
        "left_out": read_excluded(*map(Path, snakemake.input.boxes)),
    }
    if snakemake.params.ready:
        array, scenes = Path(snakemake.input.annotations), frozenset(snakemake.params.scenes)
        take_prepared(benchmark, split, array, layout, scenes, boxes, out, **policy)
    else:
        convert(benchmark, split, layout, boxes, out, **policy)
