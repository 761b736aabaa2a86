"""The benchmarks: one file each, and what such a file is made of.

``base`` describes a benchmark, ``registry`` lists them, ``record`` and ``prediction`` are a
question and its answer. docs/ADD_A_BENCHMARK.md walks through a new one.
"""
