"""Which records enter a training mix: shares per benchmark, limits, and counted repeats.

Each benchmark is a source of which a number of samples is asked (its quota). A source's records are
taken in random order, none twice before all that the caps admit are in; only then is it gone
through again, and each second taking of a record counts as a repeat. Caps hold for the finished
mix, repeats included. With caps the sources take turns in proportion to their quotas, so that
none uses up a scene's limit before the others.

Same seed and same records give the same mix. 223,128 records take under a second, with caps two.
"""

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from threedrs.config.schema import Caps
from threedrs.errors import ConfigError, DataError
from threedrs.instructions.mix_settings import MixSettings, SourceSampling
from threedrs.tasks.record import GROUND, Record


@dataclass(frozen=True, kw_only=True)
class SourceDraw:
    """What one benchmark gave."""

    available: int  # records of the source
    requested: int  # samples asked of it
    drawn: int  # samples in the mix; below ``requested`` only where caps stop records
    repeats: int  # samples whose record is in the mix already


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """A mix: rows of the pool, ascending, a repeated record's row as often as it was drawn."""

    rows: np.ndarray
    sources: dict[str, SourceDraw]


def pool_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return what balancing looks at, one row a record: benchmark, scene, answer, objects."""
    return pd.DataFrame(
        {
            "benchmark": [record.benchmark for record in records],
            "scene": [record.scene for record in records],
            "answer": [record.answer.strip().casefold() for record in records],
            "objects": [tuple(record.object_ids or ()) for record in records],
        }
    )


def draw_mix(pool: pd.DataFrame, settings: MixSettings) -> Draw:
    """Choose the mix's rows from a `pool_table`, with benchmarks in the order of its rows.

    Raises:
        ConfigError: a benchmark is named that has no records, or the caps leave fewer samples of
            a benchmark than its share of ``size``.
    """
    rows_of = {
        str(name): np.flatnonzero(pool["benchmark"].to_numpy() == name)
        for name in dict.fromkeys(pool["benchmark"])
    }
    for key in ("sampling", "weights"):
        for name in getattr(settings, key):
            if name not in rows_of:
                raise ConfigError(
                    f"{key}.{name}: the mix has no records of it; choose from {', '.join(rows_of)}"
                )
    available = {name: len(rows) for name, rows in rows_of.items()}
    quotas = quotas_of(available, settings)
    queues = {
        name: _Queue(
            rows,
            quotas[name],
            settings.sampling.get(name, "all"),
            # of its own, so that one source's settings leave the choice from the others alone
            np.random.default_rng([settings.seed, zlib.crc32(name.encode())]),
        )
        for name, rows in rows_of.items()
    }
    if settings.caps != Caps():
        taken = _draw_capped(pool, queues, settings.caps, fill=settings.size is not None)
    else:
        taken = {name: queue.first(queue.quota) for name, queue in queues.items()}
    sources = {
        name: SourceDraw(
            available=available[name],
            requested=quotas[name],
            drawn=len(rows),
            repeats=len(rows) - len(np.unique(rows)),
        )
        for name, rows in taken.items()
    }
    if settings.size is not None:
        _require_shares(sources)
    return Draw(rows=np.sort(np.concatenate(list(taken.values()))), sources=sources)


def quotas_of(available: dict[str, int], settings: MixSettings) -> dict[str, int]:
    """Return the samples asked of each benchmark, each within one of its exact share."""
    if settings.balance == "all":
        return dict(available)
    if settings.balance == "sampling":
        return {
            name: SourceSampling.parse(settings.sampling.get(name, "all"), name).count(count)
            for name, count in available.items()
        }
    if settings.balance == "weights":
        shares = np.array([settings.weights.get(name, 0.0) for name in available], np.float64)
    else:
        assert settings.temperature is not None
        counts = np.array(list(available.values()), np.float64)
        shares = (counts / counts.max()) ** (1 / settings.temperature)
    assert settings.size is not None
    # Largest remainders: rounding each share by itself would miss the size by some samples.
    exact = settings.size * (shares / shares.sum())
    quotas = np.floor(exact).astype(np.int64)
    left = settings.size - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:left]] += 1
    return dict(zip(available, map(int, quotas), strict=True))


class _Queue:
    """One source's rows in the order in which they are taken, round after round."""

    def __init__(
        self, rows: np.ndarray, quota: int, sampling: str, generator: np.random.Generator
    ) -> None:
        self.order = SourceSampling.parse(sampling, "sampling").order
        self.rows = rows
        if self.order in ("first", "end"):
            # the user named these rows, so no other may stand in for one that a cap stops
            self.rows = rows[:quota] if self.order == "first" else rows[max(0, len(rows) - quota) :]
        self.quota = quota
        self.generator = generator

    def round(self) -> np.ndarray:
        """Return all rows once, in random order."""
        return self.generator.permutation(self.rows)

    def first(self, count: int) -> np.ndarray:
        """Return ``count`` rows, each once before any is repeated; no caps."""
        # Whole rounds first, so that no record repeats twice before another repeats once.
        whole, rest = divmod(count, max(1, len(self.rows)))
        if self.order == "first":
            part = self.rows[:rest]
        elif self.order == "end":
            part = self.rows[len(self.rows) - rest :]
        else:
            part = self.round()[:rest]
        return np.concatenate([np.tile(self.rows, whole), part])


def _draw_capped(
    pool: pd.DataFrame, queues: dict[str, _Queue], caps: Caps, fill: bool
) -> dict[str, np.ndarray]:
    """Take rows while quotas and caps admit them; with ``fill`` repeat as often as needed."""
    gate = _Gate(pool, caps)
    taken: dict[str, list[int]] = {name: [] for name in queues}
    rounds = 0
    while True:
        names, keys, rows = [], [], []
        for number, (name, queue) in enumerate(queues.items()):
            asked = queue.quota - len(taken[name])
            if asked <= 0 or not (fill or rounds * len(queue.rows) < queue.quota):
                continue
            order = queue.round()
            rows.append(order)
            names.append(np.full(len(order), number))
            # Sources take turns by the share of their quota that is done. Otherwise the first
            # source would use up the caps on scenes and objects that all of them share.
            keys.append((np.arange(len(order)) + 0.5) / asked)
        rounds += 1
        if not rows:
            break
        name_R, key_R, row_R = (np.concatenate(part) for part in (names, keys, rows))
        by_number = list(queues)
        progress = False
        for place in np.lexsort((name_R, key_R)):
            name, row = by_number[name_R[place]], int(row_R[place])
            if len(taken[name]) < queues[name].quota and gate.admit(row):
                taken[name].append(row)
                progress = True
        if not progress:  # caps stop every row that is left
            break
    return {name: np.array(rows, dtype=np.int64) for name, rows in taken.items()}


class _Gate:
    """Counts what the mix holds of each scene, answer and object, and refuses what is too much."""

    def __init__(self, pool: pd.DataFrame, caps: Caps) -> None:
        self._limits: dict[str, int] = caps.model_dump(exclude_none=True)
        self._counts: Counter[tuple[str, Any]] = Counter()
        columns = (pool[name] for name in ("benchmark", "scene", "answer", "objects"))
        self._keys_of_row = [self._keys(*row) for row in zip(*columns, strict=True)]

    def _keys(
        self, benchmark: str, scene: str, answer: str, objects: tuple[int, ...]
    ) -> list[tuple[str, Any]]:
        """Return what a row counts as, each with the cap that limits it."""
        keys = [("max_per_scene", scene), *(("max_per_object", (scene, o)) for o in set(objects))]
        # Every grounding sample has the same answer, which says nothing about it.
        keys += [] if answer == GROUND else [("max_per_answer", (benchmark, answer))]
        return [key for key in keys if key[0] in self._limits]

    def admit(self, row: int) -> bool:
        """Count the row and return True, or return False if a limit stops it."""
        # All limits are asked before any count is raised: a refused row counts nowhere.
        keys = self._keys_of_row[row]
        if any(self._counts[key] >= self._limits[key[0]] for key in keys):
            return False
        for key in keys:
            self._counts[key] += 1
        return True


def _require_shares(sources: dict[str, SourceDraw]) -> None:
    short = {name: source for name, source in sources.items() if source.drawn < source.requested}
    if not short:
        return
    total = sum(source.requested for source in sources.values())
    possible = math.floor(total * min(source.drawn / source.requested for source in short.values()))
    listed = ", ".join(
        f"{source.drawn} of the {source.requested} samples of {name}"
        for name, source in short.items()
    )
    raise DataError(
        f"the caps leave only {listed} that size {total} asks for; raise the caps, or lower size "
        f"to about {possible}"
    )
