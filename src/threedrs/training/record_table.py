"""The records of a mix as bytes, each made when it is asked for.

A loader process is a fork. What it only reads stays shared with the training process, but a Python
object is written to whenever it is referred to, so that a list of records would be copied into each
loader bit by bit: 240 MB for the published mix. An array of their JSON is not.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from threedrs.instructions.record import Record, read_records


class RecordTable(Sequence[Record]):
    """Records in order.

    Attributes:
        scenes: the scene of each record.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.scenes: list[str] = []
        self._bytes = np.frombuffer(b"".join(self._encoded(records)), dtype=np.uint8)
        (ends,) = np.nonzero(self._bytes == ord("\n"))  # which JSON writes as an escape
        self._bounds = np.concatenate([[0], ends + 1])

    def _encoded(self, records: Iterable[Record]) -> Iterator[bytes]:
        names: dict[str, str] = {}
        for record in records:
            self.scenes.append(names.setdefault(record.scene, record.scene))
            yield json.dumps(record.to_json()).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> "RecordTable":
        """Return the records of a JSON-lines file; see `read_records` for what is raised."""
        return cls(read_records(path))

    def __len__(self) -> int:
        return len(self.scenes)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, end = self._bounds[index % len(self) : index % len(self) + 2]
        value = json.loads(self._bytes[start:end].tobytes())
        del value["format_version"]
        return Record(**value)
