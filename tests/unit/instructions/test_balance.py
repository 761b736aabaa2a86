"""Balancing: the guarantees as properties, and each strategy by hand."""

from collections import Counter
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from threedrs.errors import ConfigError, DataError
from threedrs.instructions.balance import Draw, draw_mix, pool_table
from threedrs.instructions.mix_settings import MixSettings
from threedrs.tasks.record import Record, conversation

NAMES = ("scanrefer", "scan2cap", "scanqa", "sqa3d")

Row = tuple[str, str, str, tuple[int, ...]]
rows_of_pool = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["scene0000_00", "scene0001_00", "scene0002_00"]),
        st.sampled_from(["<ground>", "yes", "no", "brown"]),
        st.lists(st.integers(0, 3), max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=60,
)
limit = st.none() | st.integers(1, 8)
caps = st.fixed_dictionaries(
    {"max_per_scene": limit, "max_per_answer": limit, "max_per_object": limit}
)
sampling_text = st.just("all") | st.builds(
    "{}:{}{}".format,
    st.sampled_from(["first", "end", "random"]),
    st.integers(0, 130),
    st.sampled_from(["", "%"]),
)
quick = settings(max_examples=150, derandomize=True, database=None)


def table(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["benchmark", "scene", "answer", "objects"])


def draw(pool: pd.DataFrame, **mix: Any) -> Draw:
    return draw_mix(pool, MixSettings(**mix))


@st.composite
def mixes(draw_value: Any, with_caps: bool) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A pool and any mix of it."""
    rows = draw_value(rows_of_pool)
    present = sorted({row[0] for row in rows})
    mix: dict[str, Any] = {"balance": draw_value(st.sampled_from(sorted(STRATEGIES)))}
    mix["seed"] = draw_value(st.integers(0, 3))
    for key in STRATEGIES[mix["balance"]]:
        mix[key] = draw_value(
            {
                "sampling": st.dictionaries(st.sampled_from(present), sampling_text, min_size=1),
                "temperature": st.floats(0.05, 50),
                "weights": st.dictionaries(
                    st.sampled_from(present), st.floats(0.1, 10), min_size=1
                ),
                "size": st.integers(1, 90),
            }[key]
        )
    if with_caps:
        mix["caps"] = draw_value(caps)
    return table(rows), mix


STRATEGIES = {
    "all": (),
    "sampling": ("sampling",),
    "temperature": ("temperature", "size"),
    "weights": ("weights", "size"),
}


def drawn_or_refused(pool: pd.DataFrame, mix: dict[str, Any]) -> Draw:
    try:
        return draw(pool, **mix)
    except DataError:
        # only caps together with a size can be impossible to meet
        assume("caps" not in mix or "size" not in mix)
        raise


@pytest.mark.slow
@quick
@given(mixes(with_caps=True))
def test_same_seed_same_mix(case: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    pool, mix = case
    first, second = drawn_or_refused(pool, mix), drawn_or_refused(pool, mix)
    assert np.array_equal(first.rows, second.rows)
    assert first.sources == second.sources
    assert (np.diff(first.rows) >= 0).all()


def exact_requests(pool: pd.DataFrame, mix: dict[str, Any]) -> dict[str, float | Fraction]:
    """What each benchmark should give, written from the specification."""
    counts = Counter(pool["benchmark"])
    if mix["balance"] == "all":
        return dict(counts)
    if mix["balance"] == "sampling":
        wanted: dict[str, float | Fraction] = {}
        for name, count in counts.items():
            text = mix["sampling"].get(name, "all")
            amount = text.partition(":")[2]
            if text == "all":
                wanted[name] = count
            elif amount.endswith("%"):
                wanted[name] = Fraction(amount[:-1]) * count / 100
            else:
                wanted[name] = int(amount)
        return wanted
    if mix["balance"] == "weights":
        shares = {name: mix["weights"].get(name, 0) for name in counts}
    else:
        largest = max(counts.values())
        shares = {
            name: (count / largest) ** (1 / mix["temperature"]) for name, count in counts.items()
        }
    return {name: mix["size"] * share / sum(shares.values()) for name, share in shares.items()}


@quick
@given(mixes(with_caps=False))
def test_shares_are_within_one_sample_and_repeats_come_last_and_are_counted(
    case: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    pool, mix = case
    found = draw(pool, **mix)
    names = pool["benchmark"].to_numpy()[found.rows]
    for name, wanted in exact_requests(pool, mix).items():
        source = found.sources[name]
        rows = found.rows[names == name]
        assert len(rows) == source.drawn == source.requested
        assert floor(wanted) <= source.drawn <= ceil(wanted + 1e-6)
        times = Counter(rows.tolist())
        assert source.repeats == sum(times.values()) - len(times)
        # without replacement: no record twice before every other stands as often but once
        members = np.flatnonzero(pool["benchmark"].to_numpy() == name)
        if mix.get("sampling", {}).get(name, "").startswith("first"):
            members = members[: source.drawn]
        if mix.get("sampling", {}).get(name, "").startswith("end"):
            members = members[max(0, len(members) - source.drawn) :]
        often = [times.get(int(row), 0) for row in members]
        assert not often or max(often) - min(often) <= 1


@pytest.mark.slow
@quick
@given(mixes(with_caps=True))
def test_caps_hold(case: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    pool, mix = case
    found = drawn_or_refused(pool, mix)
    chosen = pool.iloc[found.rows]
    answers = chosen[chosen["answer"] != "<ground>"]
    counts = {
        "max_per_scene": Counter(chosen["scene"]),
        "max_per_answer": Counter(zip(answers["benchmark"], answers["answer"], strict=True)),
        "max_per_object": Counter(
            (scene, one)
            for scene, objects in zip(chosen["scene"], chosen["objects"], strict=True)
            for one in set(objects)
        ),
    }
    for name, counted in counts.items():
        if mix["caps"][name] is not None:
            assert max(counted.values(), default=0) <= mix["caps"][name]
    drawn = Counter(chosen["benchmark"])
    for name, wanted in exact_requests(pool, mix).items():
        source = found.sources[name]
        assert drawn[name] == source.drawn
        assert source.repeats == source.drawn - len(set(chosen[chosen.benchmark == name].index))
        if mix["balance"] in ("temperature", "weights"):
            assert floor(wanted) <= source.drawn <= ceil(wanted + 1e-6)
        else:
            assert source.drawn <= ceil(wanted)


@pytest.mark.slow
@quick
@given(mixes(with_caps=True))
def test_capped_all_leaves_out_only_what_the_caps_stop(
    case: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    pool, mix = case[0], {"balance": "all", "seed": case[1]["seed"], "caps": case[1]["caps"]}
    found = draw(pool, **mix)
    chosen = pool.iloc[found.rows]
    for row in set(range(len(pool))) - set(found.rows.tolist()):
        left = pool.iloc[row]
        same_answer = (chosen.benchmark == left.benchmark) & (chosen.answer == left.answer)
        stops = [
            (mix["caps"]["max_per_scene"], int((chosen.scene == left.scene).sum())),
            *[
                (
                    mix["caps"]["max_per_object"],
                    sum(
                        one in objects and scene == left.scene
                        for scene, objects in zip(chosen.scene, chosen.objects, strict=True)
                    ),
                )
                for one in left.objects
            ],
        ]
        if left.answer != "<ground>":
            stops.append((mix["caps"]["max_per_answer"], int(same_answer.sum())))
        assert any(most is not None and count >= most for most, count in stops)


def by_name(pool: pd.DataFrame, found: Draw) -> dict[str, list[int]]:
    """Position within its source of each sample, by benchmark."""
    place = pool.groupby("benchmark").cumcount().to_numpy()
    chosen: dict[str, list[int]] = {}
    for row in found.rows:
        chosen.setdefault(pool["benchmark"][row], []).append(int(place[row]))
    return chosen


def pool_of(**counts: int) -> pd.DataFrame:
    rows = [
        (name, "scene0000_00", str(n), ()) for name, count in counts.items() for n in range(count)
    ]
    return table(rows)


def test_sampling_by_hand() -> None:
    pool = pool_of(scanrefer=5, scan2cap=7, scanqa=10, sqa3d=4)
    asked = {"scanrefer": "first:2", "scan2cap": "end:40%", "sqa3d": "first:6"}
    found = draw(pool, balance="sampling", sampling=asked)
    assert by_name(pool, found) == {
        "scanrefer": [0, 1],
        "scan2cap": [4, 5, 6],  # 40 % of 7 is 2.8, rounded up
        "scanqa": list(range(10)),
        "sqa3d": [0, 0, 1, 1, 2, 3],
    }
    assert found.sources["sqa3d"].repeats == 2


def test_temperature_by_hand() -> None:
    pool = pool_of(scanqa=100, sqa3d=900)
    for temperature, counts in ((1, (20, 180)), (2, (50, 150)), (1e9, (100, 100))):
        found = draw(pool, balance="temperature", temperature=temperature, size=200)
        assert tuple(source.drawn for source in found.sources.values()) == counts
        assert not any(source.repeats for source in found.sources.values())


def test_the_seed_changes_the_choice_and_one_source_leaves_the_others_alone() -> None:
    pool = pool_of(scanqa=50, sqa3d=50)
    mix = {"balance": "sampling", "sampling": {"scanqa": "random:10", "sqa3d": "random:10"}}
    first = by_name(pool, draw(pool, **mix))
    assert by_name(pool, draw(pool, **mix, seed=1)) != first
    mix["sampling"] = {"scanqa": "random:10", "sqa3d": "random:20"}
    assert by_name(pool, draw(pool, **mix))["scanqa"] == first["scanqa"]


def test_frequent_answers_are_thinned_whatever_their_case() -> None:
    records = [
        Record(
            id=str(number),
            benchmark="scanqa",
            scene="scene0000_00",
            conversations=conversation("<image> What?", answer),
        )
        for number, answer in enumerate(["yes", "Yes ", "YES", "brown", "no"])
    ]
    pool = pool_table(records)
    found = draw(pool, balance="all", caps={"max_per_answer": 1})
    assert Counter(pool["answer"][found.rows]) == {"yes": 1, "brown": 1, "no": 1}


def test_caps_that_leave_too_little_stop_with_the_size_that_works() -> None:
    pool = pool_of(scanqa=30, sqa3d=30)
    mix = {"balance": "weights", "weights": {"scanqa": 1, "sqa3d": 1}}
    with pytest.raises(DataError, match=r"only 10 of the 20 samples of scanqa, 10 .* about 20"):
        draw(pool, **mix, size=40, caps={"max_per_scene": 20})
    assert len(draw(pool, **mix, size=20, caps={"max_per_scene": 20}).rows) == 20


def test_a_benchmark_without_records_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weights\.scanqa: the mix has no records of it"):
        draw(pool_of(sqa3d=3), balance="weights", weights={"scanqa": 1}, size=2)
