"""Passes over next tokens, in rounded sizes and recorded, against one pass over everything."""

import weakref
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fixtures.adapters import stir, with_lora
from fixtures.plain_answers import family_student, plain_choices
from fixtures.students import MANY, scene, student, tokenizer
from threedrs.config.schema import LoraSettings
from threedrs.models import pass_sizes, token_passes
from threedrs.models.backbones.fused_layers import GATE_UP, QUERY_KEY_VALUE, fuse_projections
from threedrs.models.backbones.llava import LlavaFamily
from threedrs.models.checkpoint.decoding import Decoding
from threedrs.models.inference import SceneSession
from threedrs.models.packing import Query
from threedrs.models.prompt import build_query
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.student import Student
from threedrs.models.token_passes import KEPT_CELLS, TokenPasses, kept_tokens

FAMILIES = ("llava-video", "llava-onevision", "qwen2-vl")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _queries(count: int = len(MANY)) -> list[Query]:
    return [build_query(item, tokenizer(), prompt="reference") for item in MANY[:count]]


def _session(
    model: Student, passes: TokenPasses | None = None, ends: Sequence[int] = (), seed: int = 0
) -> SceneSession:
    session = SceneSession(model, tokenizer(), scene(seed=seed), prompt="reference", passes=passes)
    session.decoding = Decoding(ends=frozenset(ends))
    return session


def _until(answer: list[int], end: int) -> list[int]:
    return answer[: answer.index(end)] if end in answer else answer


def _ending(answers: Sequence[list[int]]) -> int:
    """Return the token at which the answers end at the most different lengths."""
    tokens = sorted({token for answer in answers for token in answer})
    return max(tokens, key=lambda end: len({len(_until(answer, end)) for answer in answers}))


def _assert_answers_are_plain(
    model: Student, plain: Student, words: Any, inputs: SceneInputs, most: int
) -> None:
    """Assert that answers of ``most`` tokens are those that ``plain`` is sure of, most of them."""
    queries = [build_query(item, words, prompt="reference") for item in MANY[:9]]
    session = SceneSession(model, words, inputs, prompt="reference")
    session.decoding = Decoding(ends=frozenset())
    sure = 0
    for query, answer in zip(queries, session.generate(queries, most), strict=True):
        chosen, count = plain_choices(plain, query, answer, inputs)
        assert chosen[:count] == answer[:count]
        sure += count
    assert sure > 9 * most / 2


def test_answers_of_any_length_are_those_of_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows end one after the other, and the others grow through several widths."""
    monkeypatch.setattr(pass_sizes, "WIDTH", 16)
    model, most = student(), 70
    passes = TokenPasses(model)
    session, queries = _session(model, passes), _queries(9)
    free = session.generate(queries, most)
    for query, answer in zip(queries, free, strict=True):
        assert plain_choices(model, query, answer, scene())[0][:most] == answer
    end = _ending(free)
    expected = [_until(answer, end) for answer in free]
    assert len(set(map(len, expected))) >= 3, "the answers must differ in length to test anything"
    session.decoding = Decoding(ends=frozenset([end]))
    assert session.generate(queries, most) == expected
    rows, widths = map(set, zip(*passes.sizes, strict=True))
    assert len(rows) > 2
    assert len(widths) > 2
    # The same sizes again, each question alone, and another scene before.
    _session(model, passes, seed=1).generate(_queries(3), 5)
    for query, answer in zip(queries[:2], expected, strict=False):
        assert session.generate([query], most) == [answer]


@pytest.mark.parametrize("name", FAMILIES)
def test_fused_projections_are_the_same_weights_and_answers(name: str) -> None:
    model, words, inputs = family_student(name)
    plain = deepcopy(model)
    fuse_projections(model.language_model)
    before, after = plain.state_dict(), model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[own], tensor) for own, tensor in before.items())
    for layer in model.language_model.model.layers:
        for module, parts in ((layer.self_attn, QUERY_KEY_VALUE), (layer.mlp, GATE_UP)):
            weights = [module.get_parameter(f"{part}.weight") for part in parts]
            (memory,) = {weight.untyped_storage() for weight in weights}
            assert memory.nbytes() == sum(weight.nbytes for weight in weights)
    _assert_answers_are_plain(model, plain, words, inputs, 12)


def test_projections_with_adapters_are_not_fused() -> None:
    model = stir(with_lora(LoraSettings(rank=2, alpha=6, targets=("v_proj", "up_proj"))))
    expected = _session(model).generate(_queries(3), 9)
    fuse_projections(model.language_model)
    first, *_ = model.language_model.model.layers
    assert first.self_attn.fused is None
    assert first.mlp.fused is None
    assert _session(model).generate(_queries(3), 9) == expected


def test_the_order_of_questions_does_not_matter() -> None:
    session, queries = _session(student()), _queries()
    answers = session.generate(queries, 9)
    order = torch.randperm(len(queries), generator=torch.Generator().manual_seed(0)).tolist()
    assert session.generate([queries[number] for number in order], 9) == [
        answers[number] for number in order
    ]


def test_what_is_kept_is_what_is_said() -> None:
    model = student()
    passes = TokenPasses(model)
    session = _session(model, passes)
    session.decoding = replace(session.decoding, penalty=1.05)
    for count in (9, 3, 1):
        session.generate(_queries(count), 2)
    assert list(passes.sizes) == [(16, 64), (4, 64), (1, 64)]
    assert passes.cells is not None
    kept = [passes.cells, *(tensor for pair in passes.prefix for tensor in pair)]
    for size in passes.sizes.values():
        kept += vars(size.state).values()
    text = model.text_config
    heads = text.num_attention_heads // text.num_key_value_heads
    expected = (session.prefix_length + 16 * 64) * _token_bytes(text, 4)
    for rows in (16, 4, 1):
        # A bias a cell and query head, token and position a row, a flag a word, and the column.
        expected += 4 * heads * rows * 64 + rows * (8 + 8 + text.vocab_size) + 8
    assert sum(tensor.nbytes for tensor in kept) == expected


def test_at_7b_no_more_than_the_said_gigabytes_are_kept() -> None:
    text = LlavaFamily.new("7b", tokens=0, grid=14).text_config
    assert 6744 * _token_bytes(text, 2) / 1e9 == pytest.approx(0.387, abs=1e-3)
    assert KEPT_CELLS * _token_bytes(text, 2) / 1e9 == pytest.approx(0.940, abs=1e-3)


def _token_bytes(text: Any, number: int) -> int:
    """Bytes of a token's keys and values in all layers, of ``number`` bytes each."""
    head = text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head * number


def test_the_size_used_least_recently_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_passes, "SIZES", 2)
    passes = TokenPasses(student())
    session = _session(passes.student, passes)
    for count in (5, 3, 6, 1):
        session.generate(_queries(count), 2)
    assert list(passes.sizes) == [(8, 64), (1, 64)]


def test_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_passes, "KEPT_CELLS", 4 * 64)
    passes = TokenPasses(student())
    session = _session(passes.student, passes)
    session.generate(_queries(4), 2)
    assert passes.cells is not None
    expected = [session.generate([query], 3)[0] for query in _queries(6)]
    assert session.generate(_queries(6), 3) == expected
    assert passes.cells is None
    assert not passes.sizes


def test_a_value_that_is_not_a_number_stays_in_its_scene() -> None:
    model = student()
    expected = _session(model).generate(_queries(2), 4)
    passes = TokenPasses(model)
    session = _session(model, passes)
    session.generate(_queries(2), 4)
    assert passes.cells is not None
    passes.cells[:] = torch.nan
    assert session.generate(_queries(2), 4) == expected


def test_few_queries_attend_to_a_prefix_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = TokenPasses(student())
    whole, short = ([(torch.zeros(1, 4, tokens, 8),) * 2] for tokens in (48, 14))
    passes.prefix = whole
    assert passes._prefix_parts(7) == 1  # without a GPU
    passes.captures = True
    for processors, parts in ((132, 24), (108, 24), (40, 8), (3, 1)):
        device = SimpleNamespace(multi_processor_count=processors)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=device: device)
        # One question of 7B has 7 queries a key head, 66 questions have 72 rows.
        passes.prefix = whole
        assert [passes._prefix_parts(7 * rows) for rows in (1, 16, 24, 72)] == [parts, parts, 1, 1]
        passes.prefix = short  # parts are of one length
        assert passes._prefix_parts(7) == min(parts, 2)


def test_a_short_prefix_is_kept_whole() -> None:
    """Without images it has 14 tokens, and there is no softmax over no key."""
    session = SceneSession(student(), tokenizer(), scene().without_images(), prompt="reference")
    assert session.prefix_length == 14
    assert [kept_tokens(tokens) for tokens in (14, 23, 24, 47, 6744)] == [14, 23, 24, 24, 6744]


def _memory_of_the_prefix(passes: TokenPasses) -> weakref.ref:
    assert passes.kept_XKLd is not None
    return weakref.ref(passes.kept_XKLd.untyped_storage())


def test_nothing_holds_the_prefix_after_release() -> None:
    passes = TokenPasses(student())
    passes.kept_XKLd = torch.zeros(4, 2, 24, 8)
    passes.prefix = [(key, value) for key, value in passes.kept_XKLd[:, None].unflatten(0, (2, 2))]
    memory = _memory_of_the_prefix(passes)
    assert memory() is not None
    passes.release()
    assert memory() is None


@NEEDS_GPU
@pytest.mark.parametrize(
    ("name", "fused"), [*((name, True) for name in FAMILIES), (FAMILIES[0], False)]
)
def test_recorded_passes_give_the_answers_of_plain_code(
    name: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, in scenes that take turns, with answers that end and grow.

    Evaluations during a training answer without fused projections.
    """
    monkeypatch.setattr(pass_sizes, "WIDTH", 32)
    model, words, inputs = family_student(name)
    model, inputs = model.to("cuda"), inputs.to("cuda")
    plain = deepcopy(model)
    if fused:
        fuse_projections(model.language_model)
    other = replace(inputs, rgb_VHWC=255 - inputs.rgb_VHWC)
    queries = [build_query(item, words, prompt="reference") for item in MANY[:9]]
    passes, most = TokenPasses(model), 48
    for penalty in (1.0, 1.3):
        sessions = [
            SceneSession(model, words, one, prompt="reference", passes=passes)
            for one in (inputs, other)
        ]
        expected, sure = [], []
        for session in sessions:
            session.decoding = Decoding(ends=frozenset(), penalty=penalty)
            answers = session.generate(queries, most)
            for query, answer in zip(queries, answers, strict=True):
                chosen, count = plain_choices(plain, query, answer, session.scene, penalty)
                assert chosen[:count] == answer[:count]
                sure.append(count)
            expected.append(answers)
        assert expected[0] != expected[1]
        assert sum(sure) > len(sure) * most / 2, "most tokens must be sure to test anything"
        assert any(size.graph is not None for size in passes.sizes.values())
        end = _ending(expected[0])
        sessions[0].decoding = Decoding(ends=frozenset([end]), penalty=penalty)
        expected[0] = [_until(answer, end) for answer in expected[0]]
        for _ in range(3):
            found = [session.generate(queries, most) for session in sessions]
            alone = [sessions[0].generate([query], most)[0] for query in queries]
            pairs = zip(
                [*alone, *found[0], *found[1]],
                [*expected[0], *expected[0], *expected[1]],
                [*sure[:9], *sure],
                strict=True,
            )
            for answer, right, count in pairs:
                assert answer[:count] == right[:count]
    memory = _memory_of_the_prefix(passes)
    passes.release()
    assert memory() is None


@NEEDS_GPU
@pytest.mark.parametrize("name", FAMILIES)
def test_recorded_passes_answer_without_images(name: str) -> None:
    """As `eval.controls: [text_only]` asks."""
    model, words, inputs = family_student(name)
    model, inputs = model.to("cuda"), inputs.without_images().to("cuda")
    _assert_answers_are_plain(model, model, words, inputs, 8)
