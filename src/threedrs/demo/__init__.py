"""Generated rooms in ScanNet's on-disk formats, with the five benchmarks' annotation files.

``rooms`` lays out furniture, ``mesh`` makes the scan's mesh, ``trajectory`` and ``render`` the RGB-D
stream, ``relations`` and ``language`` the sentences, ``write`` all files. Nothing here is taken
from ScanNet: every room, picture and sentence follows from the seed.
"""
