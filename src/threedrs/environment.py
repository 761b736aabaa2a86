"""What the jobs of the workflow inherit from the Snakemake process."""

import os
import sys
from pathlib import Path


def use_this_checkout(root: Path) -> None:
    """Let jobs find this interpreter, the tools beside it (ninja), and the code under ``root``.

    So the workflow runs the same whether the virtual environment is activated or not, and always
    runs the modules whose checksums it tracks.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["PYTHONPATH"] = str(Path(root, "src").resolve())
