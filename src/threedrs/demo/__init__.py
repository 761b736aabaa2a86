"""Generated rooms in ScanNet's on-disk formats, with the five benchmarks' annotation files.

``rooms`` lays out ``furniture``, ``room_mesh`` makes the scan's mesh, ``render`` its RGB-D stream,
``relations``, ``language``, ``questions`` and ``situations`` the sentences, ``scan_files`` and
``annotations`` the files, ``write`` the whole. Nothing here is taken from ScanNet: every room,
image and sentence follows from the seed.
"""
