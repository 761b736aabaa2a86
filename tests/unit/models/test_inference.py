"""Scene-shared inference against one pass over everything for every token."""

from dataclasses import replace

import pytest
import torch

from fixtures.plain_answers import family_student, hidden_states, plain_answer
from fixtures.students import (
    CAPTION,
    GROUNDING,
    MANY,
    MIXED,
    TEXT,
    pack,
    record,
    scene,
    student,
    tokenizer,
)
from threedrs.config.schema import SupervisionSettings
from threedrs.models.heads import info_nce
from threedrs.models.inference import SceneSession
from threedrs.models.packing import Query
from threedrs.models.prompt import PromptStyle, build_query
from threedrs.tasks.record import Record


def _query(item: Record, prompt: PromptStyle = "reference") -> Query:
    return build_query(item, tokenizer(), prompt=prompt)


def _end_at(session: SceneSession, *ends: int) -> None:
    session.decoding = replace(session.decoding, ends=frozenset(ends))


QUESTIONS = [
    TEXT,
    CAPTION,
    record("<image> How many chairs are around the table?", "4"),
    record("<image>x", "y"),
]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["reference", "as_trained"])
def test_answers_equal_decoding_without_a_cache(prompt: PromptStyle) -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt=prompt)
    answers = []
    for item in QUESTIONS:
        ids = plain_answer(model, _query(item, prompt), 8)
        answers.append(tokenizer().decode(ids, skip_special_tokens=True).strip())
        assert session.answer_all([_query(item, prompt)], 8)[0] == answers[-1]
    assert len(set(answers)) > 1, "the questions must lead to different answers to test anything"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava-video", "llava-onevision", "qwen2-vl"])
def test_questions_together_get_the_answers_they_get_alone(name: str) -> None:
    model, words, inputs = family_student(name)
    queries = [build_query(item, words, prompt="reference") for item in QUESTIONS]
    session = SceneSession(model, words, inputs, prompt="reference")
    expected = [plain_answer(model, query, 5, inputs, session.decoding.ends) for query in queries]
    assert session.generate(queries, 5) == expected
    assert len(set(map(tuple, expected))) > 1
    ground = words.convert_tokens_to_ids("<ground>")
    with torch.no_grad():
        rows = [hidden_states(model, query, [ground], inputs)[0][-1] for query in queries]
        scores = model.grounding_head(session.objects_ND, torch.stack(rows))
    torch.testing.assert_close(torch.tensor(session.ground_all(queries)), scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava-video", "llava-onevision", "qwen2-vl"])
def test_the_published_decoding_equals_plain_code_alone_and_in_a_batch(name: str) -> None:
    """Greedy with a penalty on what the answer holds already, and two end tokens."""
    model, words, inputs = family_student(name)
    queries = [build_query(item, words, prompt="reference") for item in QUESTIONS]
    greedy = SceneSession(model, words, inputs, prompt="reference").generate(queries, 6)
    # A second end token that an answer meets, and besides the published penalty one that rewards:
    # random weights hardly repeat themselves.
    ends = [words.convert_tokens_to_ids("<|im_end|>"), greedy[0][-1]]
    answers = []
    for penalty in (1.05, 0.3):
        model.generation = {"eos_token_id": ends, "repetition_penalty": penalty}
        session = SceneSession(model, words, inputs, prompt="reference", decoding="reference")
        expected = [plain_answer(model, query, 6, inputs, ends, penalty) for query in queries]
        assert session.generate(queries, 6) == expected
        assert [session.generate([query], 6)[0] for query in queries] == expected
        answers.append(expected)
    assert len(answers[0][0]) < 6
    assert answers[0] != answers[1]


def test_the_checkpoint_may_shorten_answers_and_greedy_does_not_ask_it() -> None:
    model = student()
    model.generation = {"max_new_tokens": 2, "repetition_penalty": 9.0, "eos_token_id": 1}
    lengths = {}
    for decoding in ("greedy", "reference"):
        session = SceneSession(model, tokenizer(), scene(), prompt="reference", decoding=decoding)
        _end_at(session)
        lengths[decoding] = [len(session.generate([_query(TEXT)], most)[0]) for most in (1, 4)]
    assert lengths == {"greedy": [1, 4], "reference": [1, 2]}


def test_questions_that_stop_early_leave_the_others_as_they_are() -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt="reference")
    queries = [_query(item) for item in MANY]
    _end_at(session)
    free = session.generate(queries, 14)
    assert free == [session.generate([query], 14)[0] for query in queries]

    def until(end: int) -> list[list[int]]:
        return [ids[: ids.index(end)] if end in ids else ids for ids in free]

    tokens = {token for ids in free for token in ids}
    end = max(tokens, key=lambda end: (len(set(map(len, until(end)))), end))
    _end_at(session, end)
    expected = until(end)
    assert len(set(map(len, expected))) >= 4, "the answers must differ in length to test anything"
    assert session.generate(queries, 14) == expected


def test_the_prefix_is_neither_copied_nor_changed() -> None:
    session = SceneSession(student(), tokenizer(), scene(), prompt="reference")
    before = [(k.data_ptr(), v.data_ptr(), k.clone(), v.clone()) for k, v in session.shared]
    session.generate([_query(item) for item in MANY], 3)
    session.ground_all([_query(item) for item in MANY])
    for (keys, values), (at_keys, at_values, *contents) in zip(session.shared, before, strict=True):
        assert (keys.data_ptr(), values.data_ptr()) == (at_keys, at_values)
        assert torch.equal(keys, contents[0])
        assert torch.equal(values, contents[1])


def test_no_questions_have_no_answers() -> None:
    session = SceneSession(student(), tokenizer(), scene(), prompt="reference")
    assert session.answer_all([], 3) == []
    assert session.ground_all([]) == []


def test_texts_are_the_same_in_a_scene_without_boxes() -> None:
    model, bare = student(), scene(objects=0)
    whole = SceneSession(model, tokenizer(), scene(), prompt="reference")
    without = replace(
        scene(), boxes_N6=bare.boxes_N6, fine_NVFF=bare.fine_NVFF, coarse_NVGG=bare.coarse_NVGG
    )
    session = SceneSession(model, tokenizer(), without, prompt="reference")
    queries = [_query(item) for item in QUESTIONS]
    assert session.answer_all(queries, 4) == whole.answer_all(queries, 4)
    (scores,) = session.ground_all([_query(GROUNDING)])
    assert len(scores) == 1, "the zero target's alone"


def test_answers_do_not_depend_on_the_questions_before() -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt="reference")
    first = [session.answer_all([_query(item)], 6)[0] for item in QUESTIONS]
    session.ground_all([_query(GROUNDING)])[0]
    again = [session.answer_all([_query(item)], 6)[0] for item in reversed(QUESTIONS)]
    assert first == again[::-1]


def test_answer_stops_at_the_end_token_and_at_the_limit() -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt="reference")
    free = plain_answer(model, _query(TEXT), 4)
    assert len(free) == 4
    # Make the third token the end token.
    _end_at(session, free[2])
    expected = [] if free[0] == free[2] else free[: free.index(free[2])]
    assert session.answer_all([_query(TEXT)], 4)[0] == tokenizer().decode(expected).strip()
    _end_at(session)
    assert session.answer_all([_query(TEXT)], 2)[0] == tokenizer().decode(free[:2]).strip()


def test_grounding_scores_equal_a_pass_without_a_cache() -> None:
    model, inputs = student(), scene()
    session = SceneSession(model, tokenizer(), inputs, prompt="reference")
    query = _query(GROUNDING)
    ground = tokenizer().convert_tokens_to_ids("<ground>")
    hidden, before = hidden_states(model, query, [ground])
    with torch.no_grad():
        fine = model.visual_tokens(inputs).fine_VFFD
        objects = model.object_features(inputs, fine, hidden[before : before + 2 * 210])
        expected = model.grounding_head(objects, hidden[-1:])[0]
    scores = session.ground_all([query])[0]
    assert len(scores) == len(inputs.boxes_N6) + 1
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_scores_give_the_training_loss() -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt="as_trained")
    scores = session.ground_all([_query(GROUNDING, "as_trained")])[0]
    with torch.no_grad():
        losses = model(pack(MIXED), SupervisionSettings())
    targets = torch.isin(torch.arange(len(scores)), torch.tensor([2, 0]))
    loss = info_nce(torch.tensor([scores]), targets[None]).item()
    assert loss == pytest.approx(losses.grounding_K[1].item(), rel=1e-4)


def test_prompt_styles_do_not_mix() -> None:
    session = SceneSession(student(), tokenizer(), scene(), prompt="reference")
    with pytest.raises(AssertionError, match="another prompt style"):
        session.answer_all([_query(TEXT, "as_trained")], 1)[0]


def test_special_tokens_and_white_space_are_no_part_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = SceneSession(student(), tokenizer(), scene(), prompt="reference")
    start = tokenizer().convert_tokens_to_ids("<|im_start|>")
    ids = [start, *tokenizer().encode(" four chairs "), start]
    monkeypatch.setattr(SceneSession, "generate", lambda *arguments: [ids])
    assert session.answer_all([_query(TEXT)], 9) == ["four chairs"]
