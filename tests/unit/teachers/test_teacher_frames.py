"""Which frames imported features supervise, and how these are counted; numbers by hand."""

import pytest

from threedrs.errors import ConfigError
from threedrs.teachers.teacher_frames import FrameCounts, TeacherFrames, matched_frames


def test_each_common_frame_takes_its_own_features() -> None:
    student, teacher = [0, 30, 60, 100], [0, 30, 70, 110]
    assert matched_frames(student, teacher, "by_frame") == [(0, 0), (1, 1)]
    assert matched_frames(student, [60, 0], "by_frame") == [(0, 1), (2, 0)]
    assert matched_frames(student, [1, 2], "by_frame") == []
    # a frame that stands twice takes the first of its features, both times
    assert matched_frames([5, 5], [4, 5, 5], "by_frame") == [(0, 1), (1, 1)]


def test_as_published_goes_index_by_index() -> None:
    assert matched_frames([0, 30], [10, 40], "as_published") == [(0, 0), (1, 1)]
    with pytest.raises(ConfigError, match=r"set it to by_frame, or frames\.count to 3"):
        matched_frames([0, 30], [10, 40, 50], "as_published")


SCENES = [
    TeacherFrames(student=(0, 10), teacher=(0, 10)),
    TeacherFrames(student=(0, 10), teacher=(0, 10), proven=False),
    TeacherFrames(student=(0, 10), teacher=(0, 20)),
    TeacherFrames(student=(0, 10), teacher=(20, 30)),
]


def test_counts() -> None:
    counts = FrameCounts.count(SCENES, "by_frame")
    assert counts.to_json() == {
        "rule": "by_frame",
        "scenes": 4,
        "other_frames": 2,
        "unproven": 1,
        "unsupervised": 1,
        "frames": 8,
        "frames_left_out": 3,
        "notes": counts.notes(),
    }
    assert counts.notes() == [
        "The features of 2 of 4 scenes are of other frames than the student's. 3 of 8 frames are "
        "in no 3D loss, and 1 scenes have no common frame.",
        "Nothing says which frames the features of 1 of 4 scenes are of. They are taken to be the "
        "student's.",
    ]
    published = FrameCounts.count(SCENES, "as_published")
    assert (published.unsupervised, published.frames_left_out) == (0, 0)
    assert published.notes()[0].startswith("As published, 2 of 4 scenes")
    assert FrameCounts.count(SCENES[:1], "by_frame").notes() == []


def test_rows_of_the_manifest() -> None:
    rows = [each.to_entry() for each in SCENES]
    assert rows == [
        {},
        {"frames_proven": False},
        {"teacher_frames": [0, 20]},
        {"teacher_frames": [20, 30]},
    ]
    assert [TeacherFrames.of_entry([0, 10], row) for row in rows] == SCENES
    assert "1 of its 2 are among them" in SCENES[2].note()
