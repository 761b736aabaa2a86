"""Answering a scene's questions from one prefill of what they share.

The prefix with the visual tokens runs once. Its keys and values stay, one copy for all. All
questions then run together: one pass over their own tokens, packed in one row, then one pass for
every next token of those that are not finished (`threedrs.models.token_passes`). Answers do not
depend on what else is asked.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from threedrs.models.attention.question_decoding import QuestionAttention
from threedrs.models.checkpoint.decoding import Decoding
from threedrs.models.packing import Query, coordinates, on_device
from threedrs.models.prompt import PromptStyle, shared_prefix, token_id
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.student import Student
from threedrs.models.token_passes import TokenPasses
from threedrs.models.visual_tokens import token_grid
from threedrs.tasks.record import GROUND

BATCH_TOKENS = 16384  # own tokens of the questions that run together; bounds memory without a GPU

Result = TypeVar("Result")


class SceneSession:
    """One scene, ready for questions.

    ``visual_VGGD`` are the last hidden states at the visual tokens, newline tokens dropped.

    Args:
        student: in evaluation mode, on the device to run on.
        tokenizer: of the student.
        scene: on any device.
        prompt: style of all queries, on which the shared tokens depend.
        decoding: greedy, or reference, as generation_config.json of the checkpoint says.
        passes: of this student, where several scenes are asked one after the other.
    """

    # Not torch's inference mode: parameters that a sharded training run gathers here must stay fit
    # for training.
    @torch.no_grad()
    def __init__(
        self,
        student: Student,
        tokenizer: PreTrainedTokenizerBase,
        scene: SceneInputs,
        *,
        prompt: PromptStyle,
        decoding: str = "greedy",
        passes: TokenPasses | None = None,
    ) -> None:
        self.student = student
        self.passes = TokenPasses(student) if passes is None else passes
        self.tokenizer = tokenizer
        self.scene = scene = scene.to(student.device)
        # First of all, so that a GPU is at work while the host does what follows.
        visual = student.visual_tokens(scene)
        self.prefix = shared_prefix(tokenizer, prompt, label_chat_tokens=False)
        self.decoding = Decoding.of(decoding, student.generation, tokenizer)
        self.ground_token = token_id(tokenizer, GROUND)
        # The prefix runs without questions, so its keys and values serve whatever is asked later.
        cache = DynamicCache(config=student.text_config)
        before = len(self.prefix.before_ids)
        ids = torch.tensor([*self.prefix.before_ids, *self.prefix.after_ids])
        text_TD = student.embed(on_device(ids, student.device))
        tokens_TD = torch.cat([text_TD[:before], visual.sequence_TD, text_TD[before:]])
        self.prefix_length = len(tokens_TD)
        positions = self._positions(torch.arange(self.prefix_length, device=student.device))
        hidden_TD, _ = student.run_language_model(tokens_TD, positions, None, cache=cache)
        layers: Any = cache.layers
        self.shared = [(layer.keys, layer.values) for layer in layers]
        at_visual = slice(before, before + scene.visual_tokens)
        self.visual_VGGD = token_grid(hidden_TD[at_visual], student.family.grid)
        self.objects_ND = student.object_features(scene, visual.fine_VFFD, hidden_TD[at_visual])

    def answer_all(self, queries: Sequence[Query], max_new_tokens: int) -> list[str]:
        """Return the answers, each up to an end token or ``max_new_tokens``."""
        generated = self.generate(queries, max_new_tokens)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in generated]
        return [str(text).strip() for text in texts]

    @torch.no_grad()
    def generate(self, queries: Sequence[Query], max_new_tokens: int) -> list[list[int]]:
        """Return the answers as token ids, without the end token."""
        most = min(max_new_tokens, self.decoding.most or max_new_tokens)
        return self._in_batches(queries, lambda batch: self._generate(batch, most))

    @torch.no_grad()
    def ground_all(self, queries: Sequence[Query]) -> list[list[float]]:
        """Return for each query the score of each box and, last, of the zero target."""

        def ground(batch: Sequence[Query]) -> list[list[float]]:
            hidden_BD, _ = self._run_queries(batch, self.ground_token)
            return self.student.grounding_head(self.objects_ND, hidden_BD).tolist()

        return self._in_batches(queries, ground)

    def _generate(self, queries: Sequence[Query], most: int) -> list[list[int]]:
        hidden_BD, attention = self._run_queries(queries)
        lengths = torch.tensor([len(query.input_ids) for query in queries])
        position_XB = self._positions(self.prefix_length + on_device(lengths, hidden_BD.device))
        return self.passes.answer(attention, hidden_BD, position_XB, self.decoding, most)

    def _run_queries(
        self, queries: Sequence[Query], *more: int
    ) -> tuple[Tensor, QuestionAttention]:
        """Run each question's own tokens and ``more``, and return last hidden states (B,D)."""
        assert all(query.prefix == self.prefix for query in queries), (
            "a query was built for another prompt style"
        )
        device, text = self.student.device, self.student.text_config
        own = [np.append(query.input_ids, np.array(more, dtype=np.int64)) for query in queries]
        lengths = [len(ids) for ids in own]
        ends = list(accumulate(lengths))
        starts = [end - length for end, length in zip(ends, lengths, strict=True)]
        groups = text.num_attention_heads // text.num_key_value_heads
        attention = QuestionAttention(self.shared, groups, lengths)
        # From here to the first token nothing waits for the GPU, which may still be at work on the
        # prefix: it finds the questions' pass launched when it is done.
        ids_S = on_device(torch.from_numpy(np.concatenate(own)), device)
        points = (on_device(values, device) for values in coordinates(queries, starts))
        tokens_SD = self.student.embed(ids_S, *points)
        positions = self._positions(self.prefix_length + attention.offset_S)
        hidden_SD, _ = self.student.run_language_model(
            tokens_SD, positions, None, questions=attention
        )
        return hidden_SD[on_device(torch.tensor(ends), device) - 1], attention

    def _positions(self, index_T: Tensor) -> Tensor:
        return self.student.position_ids(index_T[None], self.prefix, self.scene)

    def _in_batches(
        self, queries: Sequence[Query], run: Callable[[Sequence[Query]], list[Result]]
    ) -> list[Result]:
        """Return what ``run`` makes of the queries, in batches as large as memory allows.

        Raises:
            torch.OutOfMemoryError: a single question does not fit, or the parameters are spread.
        """
        results: list[Result] = []
        limit = len(queries)
        while len(results) < len(queries):
            batch = _next_batch(queries[len(results) :], limit)
            try:
                results += run(batch)
            except torch.OutOfMemoryError:
                # Ranks that gather parameters together have to make the same passes.
                if self.passes.spread or len(batch) == 1:
                    raise
                limit = len(batch) // 2
            else:
                continue
            # Here the error is gone, and with it the tensors that its traceback held.
            self.passes.release()
            torch.cuda.empty_cache()
        return results


def _next_batch(queries: Sequence[Query], limit: int) -> Sequence[Query]:
    """Return the first queries, at least one, at most ``limit`` and of at most BATCH_TOKENS."""
    tokens = 0
    for count, query in enumerate(queries[:limit]):
        tokens += len(query.input_ids)
        if count and tokens > BATCH_TOKENS:
            return queries[:count]
    return queries[:limit]
