"""Scene-shared inference against one pass over everything for every token."""

import pytest
import torch
from student_fixtures import (
    CAPTION,
    GROUNDING,
    MIXED,
    TEXT,
    pack,
    record,
    scene,
    student,
    tokenizer,
)

from threedrs.instructions.record import Record
from threedrs.models.grounding import info_nce
from threedrs.models.llava import Student
from threedrs.models.prompt import PromptStyle, build_query
from threedrs.models.samples import Query
from threedrs.models.session import SceneSession
from threedrs.models.settings import SupervisionSettings


def _query(item: Record, prompt: PromptStyle = "reference") -> Query:
    return build_query(item, tokenizer(), prompt=prompt)


@torch.no_grad()
def _hidden(model: Student, query: Query, more: list[int]) -> tuple[torch.Tensor, int]:
    """Last hidden states of prefix, question and further tokens, without a cache."""
    visual = model.visual_tokens(scene())
    before = len(query.prefix.before_ids)
    own = before + len(query.prefix.after_ids)
    ids = [*query.prefix.before_ids, *query.prefix.after_ids, *query.input_ids.tolist(), *more]
    text = model.embed(torch.tensor(ids), (query,), (own,))
    tokens = torch.cat([text[:before], visual.sequence_TD, text[before:]])
    hidden, _ = model.run_language_model(tokens, torch.arange(len(tokens))[None], None)
    return hidden, before


def _naive_answer(model: Student, query: Query, max_new_tokens: int) -> list[int]:
    generated: list[int] = []
    end = tokenizer().convert_tokens_to_ids("<|im_end|>")
    while len(generated) < max_new_tokens:
        hidden, _ = _hidden(model, query, generated)
        token = int((model.language_model.lm_head.weight @ hidden[-1]).argmax())
        if token == end:
            break
        generated.append(token)
    return generated


QUESTIONS = [
    TEXT,
    CAPTION,
    record("<image> How many chairs are around the table?", "4"),
    record("<image>x", "y"),
]


@pytest.mark.parametrize("prompt", ["reference", "as_trained"])
def test_answers_equal_decoding_without_a_cache(prompt: PromptStyle) -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt=prompt)
    answers = []
    for item in QUESTIONS:
        ids = _naive_answer(model, _query(item, prompt), 8)
        answers.append(tokenizer().decode(ids, skip_special_tokens=True).strip())
        assert session.answer(_query(item, prompt), 8) == answers[-1]
    assert len(set(answers)) > 1, "the questions must lead to different answers to test anything"


def test_answers_do_not_depend_on_the_questions_before() -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt="reference")
    first = [session.answer(_query(item), 6) for item in QUESTIONS]
    session.ground(_query(GROUNDING))
    again = [session.answer(_query(item), 6) for item in reversed(QUESTIONS)]
    assert first == again[::-1]


def test_answer_stops_at_the_end_token_and_at_the_limit() -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt="reference")
    free = _naive_answer(model, _query(TEXT), 4)
    assert len(free) == 4
    # Make the third token the end token.
    session.end = free[2]
    expected = [] if free[0] == free[2] else free[: free.index(free[2])]
    assert session.answer(_query(TEXT), 4) == tokenizer().decode(expected).strip()
    session.end = -1
    assert session.answer(_query(TEXT), 2) == tokenizer().decode(free[:2]).strip()


def test_grounding_scores_equal_a_pass_without_a_cache() -> None:
    model, inputs = student(), scene()
    session = SceneSession(model, tokenizer(), inputs, prompt="reference")
    query = _query(GROUNDING)
    ground = tokenizer().convert_tokens_to_ids("<ground>")
    hidden, before = _hidden(model, query, [ground])
    with torch.no_grad():
        fine = model.visual_tokens(inputs).fine_VFFD
        objects = model.object_features(inputs, fine, hidden[before : before + 2 * 210])
        expected = model.grounding_head(objects, hidden[-1:])[0]
    scores = session.ground(query)
    assert len(scores) == len(inputs.boxes_N6) + 1
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_scores_give_the_training_loss() -> None:
    model = student()
    session = SceneSession(model, tokenizer(), scene(), prompt="as_trained")
    scores = session.ground(_query(GROUNDING, "as_trained"))
    with torch.no_grad():
        losses = model(pack(MIXED), SupervisionSettings())
    assert info_nce(torch.tensor(scores), [2, 0]).item() == pytest.approx(
        losses.grounding_K[1].item(), rel=1e-4
    )


def test_prompt_styles_do_not_mix() -> None:
    session = SceneSession(student(), tokenizer(), scene(), prompt="reference")
    with pytest.raises(AssertionError, match="another prompt style"):
        session.answer(_query(TEXT, "as_trained"), 1)
