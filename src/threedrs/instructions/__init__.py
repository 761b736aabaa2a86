"""Instruction data: annotation files to records, records to a training mix.

``convert`` turns a benchmark's annotation files into records, ``mix`` joins training records, and
``llava_format`` reads and writes the field's own JSON arrays.
"""
