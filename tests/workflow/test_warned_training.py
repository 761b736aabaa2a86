"""Warnings that reach Snakemake alone, and Ctrl-C: the training saves before it ends.

On Slurm: test_slurm_training.py.
"""

import os
import signal

import pytest

from fixtures.checkout import Checkout
from fixtures.warned_training import TWO_GPUS, assert_saved, start_snakemake, wait_for_step
from fixtures.warned_training import end_what_was_started as end_what_was_started  # fixtures
from fixtures.warned_training import prepared as prepared

pytestmark = pytest.mark.slow


def test_warning_that_reaches_snakemake_alone_reaches_the_training(prepared: Checkout) -> None:
    process = start_snakemake(prepared, "--cores", "1")
    wait_for_step(prepared, 3, process)

    process.send_signal(signal.SIGUSR1)

    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert_saved(prepared, ranks=1)
    assert_called_a_stop(said)


def test_ctrl_c_saves(prepared: Checkout) -> None:
    process = start_snakemake(prepared, "--cores", "1", *TWO_GPUS)
    wait_for_step(prepared, 3, process)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does

    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert_saved(prepared, ranks=2, by="SIGINT")
    assert_called_a_stop(said)


def assert_called_a_stop(said: str) -> None:
    assert "\nStopped after " in said
    assert "threedrs: error" not in said
    assert "Traceback" not in said
