"""The header of a ``.ply`` mesh, compared with the file's size before Open3D reads it.

Open3D makes room for as many vertices as the header announces, hands out what it has of a truncated
file, and follows the vertex numbers of a polygon wherever they point. So a mesh is read here only
if its vertices come first and the file is long enough for all elements, each face with three
corners at least; and Open3D then reads it as a point cloud, which has no polygons. Costs a look at
the first kilobytes, and for a text file one pass over its lines.
"""

from dataclasses import dataclass, field
from pathlib import Path

MOST_HEADER = 64 * 2**10  # bytes; ScanNet's have 0.4 kB
FEWEST_CORNERS = 3
FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")
_SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}


class PlyError(ValueError):
    """The file is no whole mesh; one clause that says why."""


@dataclass
class _Element:
    """``count`` rows of ``row_bytes`` each; where a row holds lists, at least so many."""

    name: str
    count: int
    row_bytes: int = 0
    has_list: bool = False
    scalars: list[str] = field(default_factory=list)


def check_ply(path: Path) -> None:
    """Check that the file can hold all that its header announces, vertices first.

    Raises:
        PlyError: it cannot, or the header is none of a mesh.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(MOST_HEADER)
        header, end, _ = start.partition(b"end_header\n")
        if not end:
            header, end, _ = start.partition(b"end_header\r\n")
        if not start.startswith(b"ply") or not end:
            raise PlyError("no ply header")
        encoding, elements = _parse(header)
        body = size - len(header) - len(end)
        if encoding == "ascii":
            stream.seek(len(header) + len(end))
            found = sum(1 for line in stream if line.strip())
            needed, unit = sum(element.count for element in elements), "lines"
        else:
            needed = sum(element.count * element.row_bytes for element in elements)
            found, unit = body, "bytes"
        if found < needed:
            raise PlyError(f"{found} {unit} follow the header, it announces {needed}")


def _parse(header: bytes) -> tuple[str, list[_Element]]:
    encoding, elements = "", list[_Element]()
    for line in header.decode("ascii", errors="replace").splitlines():
        match line.split():
            case ["format", name, *_]:
                encoding = name
            case ["element", name, count] if count.isdecimal() and len(count) < 16:
                elements.append(_Element(name=name, count=int(count)))
            case ["property", "list", counts, values, _] if elements:
                corners = FEWEST_CORNERS if elements[-1].name == "face" else 0
                elements[-1].row_bytes += _size(counts) + corners * _size(values)
                elements[-1].has_list = True
            case ["property", kind, name] if elements:
                elements[-1].row_bytes += _size(kind)
                elements[-1].scalars.append(name)
            case ["ply"] | ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise PlyError(f"the header's line {line[:60]!r} is not understood")
    if encoding not in FORMATS:
        raise PlyError(f"format {encoding[:40]!r} is none of {', '.join(FORMATS)}")
    vertices = elements[0] if elements else _Element(name="", count=0)
    if vertices.name != "vertex" or vertices.has_list or not {"x", "y", "z"} <= {*vertices.scalars}:
        raise PlyError("the first element is not vertex with x, y and z")
    return encoding, elements


def _size(kind: str) -> int:
    if kind not in _SIZES:
        raise PlyError(f"property type {kind[:40]!r} is not known")
    return _SIZES[kind]
