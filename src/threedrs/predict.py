"""Entry point of an inference process: ``python -m threedrs.predict``.

Runs alone, or once a rank under ``threedrs.distributed.launch``, torchrun or srun. Ends with status
1 and one line if anything fails; the same command then goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

from threedrs.distributed.launch import start_process
from threedrs.errors import check_arguments, one_line_errors
from threedrs.workflow.processes import quick_imports


def main() -> int:
    """Run inference; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m threedrs.predict", description="A trained model's answers to a benchmark."
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="folder of the model, or a run's config.json: the model as its training would start",
    )
    parser.add_argument("--records", type=Path, required=True, help="evaluation records (JSONL)")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the scene stores")
    parser.add_argument("--out", type=Path, required=True, help="predictions.jsonl to write")
    parser.add_argument(
        "--settings",
        default="{}",
        help="JSON object: prompt, decoding, max_new_tokens, boxes, attention, coordinate_dtype, "
        "limit, control; default of coordinate_dtype: as the model was trained",
    )
    parser.add_argument(
        "--left-out", type=Path, help="JSON file that lists scenes whose scans cannot be used"
    )
    arguments = parser.parse_args()
    rank = start_process("predict")
    with quick_imports():  # of torch, after the GPU is claimed
        from threedrs.config.section import parse_object
        from threedrs.evaluation.predict_benchmark import predict_benchmark
        from threedrs.models.model_settings import PredictSettings
        from threedrs.scannet.excluded_scans import read_excluded

    with one_line_errors(f"predict: rank {rank}"):
        check_arguments()
        asked = parse_object(arguments.settings, "--settings: ")
        settings = PredictSettings.for_model(arguments.model, asked)
        predict_benchmark(
            arguments.model,
            arguments.records,
            arguments.scenes,
            settings,
            arguments.out,
            left_out=read_excluded(arguments.left_out) if arguments.left_out else None,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
