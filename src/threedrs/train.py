"""Entry point of training: ``python -m threedrs.train --config results/train/RUN/config.json``.

Runs alone, or once a rank under ``threedrs.distributed.launch``, torchrun or srun. Ends with status
1 and one line if anything fails.
"""

import argparse
import os
import sys
from pathlib import Path

from threedrs.distributed.launch import start_process
from threedrs.distributed.ranks import AgreedError, StopRequest
from threedrs.errors import MachineError, check_arguments, one_line, one_line_errors
from threedrs.training.recipe import read_run
from threedrs.workflow.processes import quick_imports

# A loader process is forked from this one; the tokenizer's threads would not survive that.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Packs differ in length: in segments that grow, what one has freed serves the next.
if "PYTORCH_ALLOC_CONF" not in os.environ:
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


def main() -> int:
    """Run training; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m threedrs.train", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the resolved run (JSON)")
    parser.add_argument(
        "--execution", default="{}", help="JSON object: keys of the section execution"
    )
    arguments = parser.parse_args()
    stop = StopRequest().install()  # before the imports, which take seconds
    rank = start_process("train")
    with quick_imports():
        import torch.distributed

        from threedrs.training.loop import train

    with one_line_errors(f"train: rank {rank}"):
        check_arguments()
        try:
            train(read_run(arguments.config, arguments.execution), stop)
        except AgreedError as error:
            if rank == 0:
                print(f"train: {error}", file=sys.stderr, flush=True)
            # A launcher ends the others once one rank is gone: let the first one speak before.
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
            return 1
        except RuntimeError as error:
            if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
                raise
            raise MachineError(
                "lost another rank, whose own message says why; run the same command to go on from "
                f"the newest checkpoint ({one_line(error)})"
            ) from error
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
