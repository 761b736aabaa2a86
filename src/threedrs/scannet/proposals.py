"""Detector proposals of a scan: ``<scene>.mask.npz``, a scipy sparse matrix of objects x vertices.

The file comes from elsewhere and is not trusted: nothing is unpickled, and every index is checked
before scipy's compiled code follows it.
"""

from pathlib import Path

import numpy as np
import scipy.sparse

from threedrs.errors import DataError
from threedrs.io.npz import check_npz

# A scene's proposals, some hundred of them, unpack to some 100 MB; far more is a damaged or hostile
# file. The number counts as well, as a row costs memory whether something is stored in it or not.
_MOST_BYTES = 4 * 2**30
_MOST_PROPOSALS = 1_000_000


def read_proposals(path: Path, vertex_count: int, limit: int) -> list[np.ndarray]:
    """Return the vertex indices, (K,) ascending, of each of the first ``limit`` masks, best first.

    A stored zero is outside the mask, whatever the matrix's dtype.

    Raises:
        DataError: the file is missing, damaged, not such a matrix, or of another mesh.
    """
    try:
        check_npz(path, _MOST_BYTES)
        matrix = scipy.sparse.load_npz(path)
        if matrix.format not in ("csr", "csc", "coo"):
            raise DataError(
                f"{path}: sparse format {matrix.format!r}, expected csr, csc or coo; save it with "
                "scipy.sparse.save_npz from a csr matrix"
            )
        if matrix.format != "coo":  # scipy checks the indices of coo by itself
            matrix.check_format(full_check=True)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: the proposals are missing") from error
    except Exception as error:  # zip, zlib, npy header, missing arrays, indices, memory
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: is not a readable scipy sparse .npz ({reason[:160]}); copy it again"
        ) from error
    if matrix.ndim != 2 or matrix.shape[1] != vertex_count:
        raise DataError(
            f"{path}: masks of shape {matrix.shape} for a mesh of {vertex_count} vertices; "
            "proposals and mesh are not of the same scan version"
        )
    if matrix.shape[0] > _MOST_PROPOSALS:
        raise DataError(f"{path}: {matrix.shape[0]} proposals are absurd; copy it again")
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"{path}: masks of dtype {matrix.dtype}, expected bool or a number")
    rows = matrix.tocsr()[:limit]
    masks = []
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        stored = rows.indices[start:stop][rows.data[start:stop] != 0]
        masks.append(np.unique(stored).astype(np.int64))
    return masks
