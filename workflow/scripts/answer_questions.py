"""Rule answer_questions: a run's answers about a split of own captures."""

from pathlib import Path

from threedrs.distributed.gpus import claim_gpus
from threedrs.evaluation.scene_questions import answer_scene_questions, read_scene_questions
from threedrs.models.model_settings import PredictSettings
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"answer_questions {snakemake.wildcards.run}"):
    claim_gpus()
    answer_scene_questions(
        Path(snakemake.params.model),
        read_scene_questions(Path(snakemake.input.questions), snakemake.params.scenes),
        Path("results/scenes"),
        PredictSettings(**snakemake.params.settings),
        left_out=read_excluded(Path(snakemake.input.left_out)),
        out=Path(snakemake.output.answers),
        images=Path(snakemake.output.images),
    )
