"""EmbodiedScan's candidate lists, and pickles that try to be more than data."""

import builtins
import collections
import datetime
import functools
import io
import operator
import os
import pickle
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from threedrs.errors import DataError
from threedrs.scannet.embodiedscan import (
    SceneInfos,
    read_infos,
    read_infos_files,
    write_infos,
)


def entry(sample: str, frames: list[int]) -> dict[str, Any]:
    """One scan as EmbodiedScan writes it: paths, matrices, instances."""
    return {
        "sample_idx": sample,
        "axis_align_matrix": np.eye(4),
        "depth_cam2img": np.eye(4, dtype=np.float32),
        "images": [
            {
                "img_path": f"scannet/posed_images/{sample.rpartition('/')[2]}/{frame:05d}.jpg",
                "cam2global": np.eye(4),
                "visible_instance_ids": [np.int64(3), np.int64(7)],
            }
            for frame in frames
        ],
        "instances": [{"bbox_3d": [0.5] * 9, "bbox_label_3d": np.int64(4), "bbox_id": 1}],
    }


def infos() -> dict[str, Any]:
    return {
        "metainfo": collections.OrderedDict(categories={"chair": 1}, DATASET="EmbodiedScan"),
        "data_list": [
            entry("scannet/scene0000_00", [0, 20, 10, 10, 1230]),
            entry("3rscan/0ad2d3a1-79e2-2212-9b99-a96495d9f7fe", [0]),
            {"sample_idx": "matterport3d/1mp3d_0000_region0", "images": None},
            entry("scannet/scene0701_02", []),
        ],
    }


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_frames_of_the_scenes_of_scannet(tmp_path: Path, protocol: int) -> None:
    content = infos() | {
        "more": [{1, 2}, frozenset("ab"), b"\xff\x00", np.arange(6).reshape(2, 3).T, np.str_("x")],
        "table": np.zeros(3, dtype=[("a", "f4"), ("b", "i8", (2,))]),
    }
    found = read_infos(write(tmp_path / "infos.pkl", content, protocol))
    unit = np.eye(4).tolist()
    assert found == {
        "scene0000_00": SceneInfos(
            frames=[0, 10, 20, 1230], axis_alignment=unit, depth_intrinsic=unit
        ),
        "scene0701_02": SceneInfos(frames=[], axis_alignment=unit, depth_intrinsic=unit),
    }


def test_names_of_older_numpy_are_known(tmp_path: Path) -> None:
    data = pickle.dumps(infos(), protocol=2).replace(b"numpy._core.multi", b"numpy.core.multi")
    assert b"numpy.core.multiarray" in data
    (tmp_path / "old.pkl").write_bytes(data)
    assert len(read_infos(tmp_path / "old.pkl")) == 2


class Reduces:
    """Pickles as a call of anything."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


MARK = "touched-by-pickle"
HOSTILE = {
    "os.system": Reduces(os.system, (f"touch {MARK}",)),
    "builtins.eval": Reduces(builtins.eval, (f"open({MARK!r}, 'w')",)),
    "builtins.exec": Reduces(builtins.exec, (f"open({MARK!r}, 'w')",)),
    "builtins.getattr": Reduces(builtins.getattr, ({}, "keys")),
    "builtins.__import__": Reduces(builtins.__import__, ("os",)),
    "open": Reduces(open, (MARK, "w")),
    "subprocess.Popen": Reduces(subprocess.Popen, (["touch", MARK],)),
    "operator.attrgetter": Reduces(operator.attrgetter, ("system",)),
    "functools.partial": functools.partial(os.system, f"touch {MARK}"),
    "numpy.load": Reduces(np.load, ("x.npy", None, True)),
    "numpy.fromfile": Reduces(np.fromfile, ("x",)),
    "datetime.date": datetime.date(2024, 1, 1),
    "test_embodiedscan.Reduces": Reduces,
    "state": Reduces(set, (), f"touch {MARK}", None, None, os.system),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_other_names_are_refused_before_anything_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    content = infos()
    content["data_list"][0]["images"][0]["extra"] = HOSTILE[name]
    path = write(tmp_path / "infos.pkl", content, protocol)
    with pytest.raises(DataError, match="neither a numpy array nor a plain container") as caught:
        read_infos(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_objects_are_refused(tmp_path: Path, protocol: int) -> None:
    plain = np.array([1, "a", None], dtype=object)
    armed = np.array([Reduces(os.system, (f"touch {MARK}",))], dtype=object)
    for number, array in enumerate((plain, armed, np.zeros(2, dtype=[("a", "O")]))):
        path = write(tmp_path / f"{number}.pkl", infos() | {"array": array}, protocol)
        with pytest.raises(DataError, match=r"array of Python objects|neither a numpy array"):
            read_infos(path)


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


# Pickles that no pickler writes: (why, bytes).
FORGED = [
    (
        "a list as an array's content",
        global_("numpy", "ndarray") + b"(I1\n(I1\ntI1\nI00\n](I1\netb.",
    ),
    ("an attribute of a stand-in", global_("numpy", "ndarray") + b"N}S'__call__'\nI1\ns\x86b."),
    ("an attribute of the encoder", global_("_codecs", "encode") + b"}S'x'\nI1\nsb."),
    ("an attribute of a type", global_("builtins", "set") + b"}S'pop'\nI1\nsb."),
    ("an encoding with code", global_("_codecs", "encode") + b"(S'x'\nS'idna'\ntR."),
    ("a dotted name", b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93."),
    ("a name with a line break", b"\x80\x04\x8c\x05a\nb\nc\x8c\x01x\x93."),
    ("a persistent id", b"Pother\n."),
    ("an extension", b"\x82\x01."),
    ("an instance", b"(ios\nsystem\n."),
    ("an absurd length", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x."),
    ("an out-of-band buffer", b"\x80\x05\x97."),
    ("nothing", b""),
    ("a stack that is empty", b"."),
    ("a text", b"hello world"),
    ("a list with itself", b"(lp0\ng0\na."),
]


@pytest.mark.parametrize(("why", "data"), FORGED, ids=[why for why, _ in FORGED])
def test_forged_pickles_are_one_error(tmp_path: Path, why: str, data: bytes) -> None:
    path = tmp_path / "forged.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_infos(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    # Nothing that a pickle did outlives it.
    assert len(read_infos(write(tmp_path / "good.pkl", infos(), 2))) == 2


@settings(max_examples=300)
@given(position=st.integers(0), value=st.integers(0, 255), cut=st.booleans())
def test_damage_is_one_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: bool
) -> None:
    data = pickle.dumps(infos(), protocol=4)
    position %= len(data)
    assume(value not in b"pr")  # "store under number": a huge number costs memory, not safety
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(data[:position] + (b"" if cut else bytes([value]) + data[position + 1 :]))
    problem, found = None, {}
    try:
        found = read_infos(path)
    except DataError as error:
        problem = str(error)
    assert problem is None or str(path) in problem
    assert all(type(frame) is int for infos in found.values() for frame in infos.frames)


def test_lists_are_written_for_the_jobs_that_need_them(tmp_path: Path) -> None:
    infos_file, out = write(tmp_path / "infos.pkl", infos()), tmp_path / "train.json"
    write_infos(infos_file, out)
    assert read_infos_files([out]) == read_infos(infos_file)
    out.write_text('{"format_version": 3}')
    with pytest.raises(DataError, match=r"train\.json: is of format version 3, expected 2"):
        read_infos_files([out])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.pkl: cannot be read \(No such file"):
        read_infos(tmp_path / "none.pkl")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), [], "is not of type 'object'; download it again"),
        (("data_list",), {}, "data_list: {} is not of type 'array'"),
        (("data_list",), [], "lists no scene of ScanNet"),
        (("data_list", 0), 5, "data_list.0: 5 is not of type 'object'"),
        (
            ("data_list", 0, "sample_idx"),
            np.int64(5),
            "data_list.0.sample_idx: .*5.* is not of",
        ),
        (("data_list", 0, "sample_idx"), "scannet/../x", r"'\.\./x' is not a scene name"),
        (("data_list", 3, "sample_idx"), "scannet/scene0000_00", "scene0000_00 stands more than"),
        (("data_list", 3, "images"), None, "data_list.3.images: None is not of type 'array'"),
        (("data_list", 0, "images", 1), "x", "images: entry 1: 'x' is not of type 'object'"),
        (
            ("data_list", 0, "images", 1, "img_path"),
            "scannet/posed_images/scene0000_01/00010.jpg",
            r"images\.1\.img_path is '.*scene0000_01/00010\.jpg', expected .*/scene0000_00/",
        ),
        (("data_list", 0, "images", 1, "img_path"), "a/scene0000_00/x.jpg", "expected .../scene"),
    ],
)
def test_other_layouts_are_named(
    tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    holder: dict[str, Any] = {"root": infos()}
    *steps, last = ("root", *path)
    target: Any = holder
    for step in steps:
        target = target[step]
    target[last] = value
    stream = io.BytesIO()
    pickle.dump(holder["root"], stream)
    (tmp_path / "infos.pkl").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match=message):
        read_infos(tmp_path / "infos.pkl")
