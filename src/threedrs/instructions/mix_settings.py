"""How a training mix is drawn from the benchmarks' records: the settings, checked."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from threedrs.errors import ConfigError

# balance -> the keys that belong to it; `seed` and `caps` belong to all.
BALANCES: dict[str, tuple[str, ...]] = {
    "all": (),
    "sampling": ("sampling",),
    "temperature": ("temperature", "size"),
    "weights": ("weights", "size"),
}
_SAMPLING = re.compile(r"(first|end|random):(\d{1,12})((?:\.\d{1,6})?%)?")


@dataclass(frozen=True, kw_only=True)
class SourceSampling:
    """How many records of one source, and which: ``all``, ``first:N``, ``end:N``, ``random:N``.

    Attributes:
        order: all, first, end or random.
        amount: N: a number of records, or the fraction that a percentage gives; None for all.
        is_fraction: whether ``amount`` is a fraction of the source.
    """

    order: str
    amount: Fraction | None = None
    is_fraction: bool = False

    @classmethod
    def parse(cls, text: Any, where: str) -> "SourceSampling":
        """Return the sampling that a string such as ``"random:30%"`` means.

        Raises:
            ConfigError: ``text`` is of no known form.
        """
        if text == "all":
            return cls(order="all")
        match = _SAMPLING.fullmatch(text) if isinstance(text, str) else None
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


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Most samples of one kind that a mix may hold, repeats included; None: no limit.

    Attributes:
        max_per_scene: samples of one scene, over all benchmarks.
        max_per_answer: samples of one benchmark with the same answer (case does not count; the
            grounding mark is no answer).
        max_per_object: samples about one object of one scene, over all benchmarks.
    """

    max_per_scene: int | None = None
    max_per_answer: int | None = None
    max_per_object: int | None = None

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(
                    f"caps.{part.name} is {value!r}; write a whole number from 1, or null"
                )

    @property
    def any(self) -> bool:
        """Return whether there is a limit at all."""
        return any(getattr(self, part.name) is not None for part in fields(self))


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """One entry of the config's ``instructions.mixes``.

    Attributes:
        balance: ``all``: every record once; ``sampling``: per source, see `SourceSampling`;
            ``temperature``: benchmark b in proportion to n_b^(1/T); ``weights``: given shares.
        seed: of every random choice.
        sampling: benchmark -> text for `SourceSampling`; a benchmark not named gives all.
        temperature: T; 1 keeps the proportions, larger ones level them.
        weights: benchmark -> relative share; a benchmark not named gives nothing.
        size: samples of the mix, for temperature and weights.
        caps: limits on the mix.
    """

    balance: str = "all"
    seed: int = 0
    sampling: Mapping[str, str] = field(default_factory=dict)
    temperature: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None
    caps: Caps = field(default_factory=Caps)

    def __post_init__(self) -> None:
        if self.balance not in BALANCES:
            raise ConfigError(f"balance is {self.balance!r}; choose one of: {', '.join(BALANCES)}")
        needed = BALANCES[self.balance]
        for key in ("sampling", "temperature", "weights", "size"):
            given = bool(getattr(self, key)) or getattr(self, key) == 0
            if given and key not in needed:
                raise ConfigError(f"balance {self.balance} has no key {key}; remove it")
            if key in needed and not given:
                raise ConfigError(f"balance {self.balance} needs the key {key}")
        if type(self.seed) is not int or self.seed < 0:
            raise ConfigError(f"seed is {self.seed!r}; write a whole number from 0")
        if self.size is not None and (type(self.size) is not int or self.size < 1):
            raise ConfigError(f"size is {self.size!r}; write a whole number from 1")
        if self.temperature is not None and not _is_positive(self.temperature):
            raise ConfigError(f"temperature is {self.temperature!r}; write a number above 0")
        for name, text in self.sampling.items():
            SourceSampling.parse(text, f"sampling.{name}")
        for name, weight in self.weights.items():
            if not _is_positive(weight):
                raise ConfigError(f"weights.{name} is {weight!r}; write a number above 0")

    @classmethod
    def from_config(cls, mix: Mapping[str, Any]) -> "MixSettings":
        """Return the settings of one entry of ``instructions.mixes``.

        Raises:
            ConfigError: a key is unknown or missing, or a value is impossible.
        """
        known = {part.name for part in fields(cls)}
        unknown = sorted(set(mix) - known)
        if unknown:
            raise ConfigError(f"{unknown[0]} is no key of a mix; choose from {', '.join(known)}")
        given = {key: value for key, value in mix.items() if value is not None}
        caps = given.pop("caps", {})
        return cls(**given, caps=Caps(**caps))

    def to_json(self) -> dict[str, Any]:
        """Return the settings that are in force, as JSON values."""
        keys = BALANCES[self.balance]
        caps = {part.name: getattr(self.caps, part.name) for part in fields(Caps)}
        return {
            "balance": self.balance,
            **{key: _plain(getattr(self, key)) for key in keys},
            "seed": self.seed,
            "caps": {name: limit for name, limit in caps.items() if limit is not None},
        }


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0
