"""How a training mix is drawn from the benchmarks' records: the settings, checked."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from pydantic import model_validator

from threedrs.config.schema import Mix
from threedrs.errors import ConfigError
from threedrs.tasks.record import Record

# balance -> the keys that belong to it; `seed`, `matching` and `caps` belong to all.
BALANCES: dict[str, tuple[str, ...]] = {
    "all": (),
    "sampling": ("sampling",),
    "temperature": ("temperature", "size"),
    "weights": ("weights", "size"),
}
_SAMPLING = re.compile(r"(first|end|random):(\d{1,12})((?:\.\d{1,6})?%)?")


@dataclass(frozen=True, kw_only=True)
class SourceSampling:
    """How many records of one source, and which: ``all``, ``first:N``, ``end:N``, ``random:N``."""

    order: str  # all, first, end or random
    # N: a number of records, or the fraction that a percentage gives; None for all.
    amount: Fraction | None = None
    is_fraction: bool = False  # whether ``amount`` is a fraction of the source

    @classmethod
    def parse(cls, text: str, where: str) -> "SourceSampling":
        """Return the sampling that a string such as ``"random:30%"`` means.

        Raises:
            ConfigError: ``text`` is of no known form.
        """
        if text == "all":
            return cls(order="all")
        match = _SAMPLING.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{where} is {text!r}; write all, first:N, end:N or random:N, N a number of "
                "records or a percentage (random:30%)"
            )
        order, whole, percent = match.groups()
        if percent is None:
            return cls(order=order, amount=Fraction(whole))
        decimals = percent.removesuffix("%")
        return cls(order=order, amount=Fraction(whole + decimals) / 100, is_fraction=True)

    def count(self, available: int) -> int:
        """Return the number of samples asked of a source of ``available`` records.

        A percentage is rounded up, the custom of LLaVA-style mixes.
        """
        if self.amount is None:
            return available
        return math.ceil(self.amount * available if self.is_fraction else self.amount)


class MixSettings(Mix):
    """One entry of the config's ``instructions.mixes``, whose keys fit each other.

    Raises:
        ConfigError: a key is unknown or missing, or a value is impossible.
    """

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = BALANCES[self.balance]
        for key in ("sampling", "temperature", "weights", "size"):
            given = bool(getattr(self, key))
            if given and key not in needed:
                raise ConfigError(f"balance {self.balance} has no key {key}; remove it")
            if key in needed and not given:
                raise ConfigError(f"balance {self.balance} needs the key {key}")
        for name, text in self.sampling.items():
            SourceSampling.parse(text, f"sampling.{name}")
        try:
            re.compile(self.matching or "")
        except re.error as error:
            raise ConfigError(
                f"matching: {self.matching!r} is not a regular expression ({error})"
            ) from error
        return self

    def admits(self, record: Record) -> bool:
        """Return whether the pattern of ``matching`` is found in the record's texts."""
        # In both at once, so that a pattern can also say what neither of them may hold.
        texts = f"{record.human}\n{record.answer}"
        return self.matching is None or re.search(self.matching, texts) is not None

    def to_json(self) -> dict[str, Any]:
        """Return the settings that are in force, as JSON values."""
        keys = {"balance", "seed", *BALANCES[self.balance]}
        keys |= {"matching"} if self.matching is not None else set()
        found = self.model_dump(mode="json", include=keys)
        return {**found, "caps": self.caps.model_dump(exclude_none=True)}
