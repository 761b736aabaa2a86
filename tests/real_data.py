"""Real data that nobody here made: small parts in tests/data, the whole beside the project."""

from pathlib import Path
from typing import Any

import pytest

SHIPPED = Path(__file__).resolve().parent / "data"
WHOLE = Path(__file__).resolve().parents[2] / "shared" / "data"


def shipped_and_whole(name: str, of_shipped: Any, of_whole: Any) -> list[Any]:
    """Return a test's parameters (folder, what is expected of it) for the part and the whole.

    The part is in every clone. The whole is too large to ship, so its case is skipped, with the
    reason, where it does not lie in ../shared/data.
    """
    whole = WHOLE / name
    missing = pytest.mark.skipif(not whole.is_dir(), reason=f"the whole {name} is not at {whole}")
    return [
        pytest.param(SHIPPED / name, of_shipped, id="shipped"),
        pytest.param(whole, of_whole, id="whole", marks=missing),
    ]
