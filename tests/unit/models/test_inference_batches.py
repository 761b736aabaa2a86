"""Questions of a scene that are too many for the memory."""

import pytest
import torch

from fixtures.students import MANY, scene, student, tokenizer
from threedrs.models import inference as session_module
from threedrs.models.inference import SceneSession
from threedrs.models.packing import Query
from threedrs.models.prompt import build_query
from threedrs.models.token_passes import TokenPasses
from threedrs.tasks.record import Record


def _query(item: Record) -> Query:
    return build_query(item, tokenizer(), prompt="reference")


def test_too_many_questions_for_the_memory_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SceneSession(student(), tokenizer(), scene(), prompt="reference")
    queries = [_query(item) for item in MANY]
    expected, scores = session.generate(queries, 4), session.ground_all(queries)
    run, sizes = session._run_queries, []

    def tight(batch, *more):
        sizes.append(len(batch))
        if len(batch) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(batch, *more)

    room = 4
    monkeypatch.setattr(session, "_run_queries", tight)
    assert session.generate(queries, 4) == expected
    assert sizes == [12, 6, 3, 3, 3, 3]
    assert session.ground_all(queries) == [pytest.approx(row, abs=1e-5) for row in scores]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        session.generate(queries, 4)
    # Spread parameters, as ZeRO-3 marks them: a rank must not make more passes than the others.
    room, session.student.grounding_head.zero_target.ds_id = 4, 0
    session.passes = TokenPasses(session.student)
    sizes.clear()
    with pytest.raises(torch.OutOfMemoryError):
        session.generate(queries, 4)
    assert sizes == [12]


def test_a_batch_holds_a_bounded_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SceneSession(student(), tokenizer(), scene(), prompt="reference")
    queries = [_query(item) for item in MANY]
    expected = session.generate(queries, 3)
    longest = max(len(query.input_ids) for query in queries)
    monkeypatch.setattr(session_module, "BATCH_TOKENS", longest)
    batches = []
    run = session._generate

    def counted(batch, length):
        batches.append([len(query.input_ids) for query in batch])
        return run(batch, length)

    monkeypatch.setattr(session, "_generate", counted)
    assert session.generate(queries, 3) == expected
    assert [size for batch in batches for size in batch] == [
        len(query.input_ids) for query in queries
    ]
    assert 1 < len(batches) < len(queries)
    assert all(sum(batch) <= longest for batch in batches)
