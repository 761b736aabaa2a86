"""Instruction data: annotation files to records, records to a training mix.

``registry.BENCHMARKS`` lists the benchmarks; each has one file here with its annotation files, its
prompt, its rows' conversion and its paper. ``convert`` runs one of them, ``mix`` joins training
records, ``llava`` speaks the field's own JSON arrays.
"""

from threedrs.instructions.registry import BENCHMARKS, EVALUATION_SPLITS, annotation_files

__all__ = ["BENCHMARKS", "EVALUATION_SPLITS", "annotation_files"]
