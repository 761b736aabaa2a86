"""Answering a scene's questions from one prefill of what they share.

The prefix with the visual tokens runs once and its keys and values stay; a question then costs the
pass over its own tokens and one small pass an answer token. Before each question the cache is cut
back to the prefix, so answers do not depend on the questions before. Object features for grounding
come from the same prefix pass.
"""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from threedrs.models.llava import Student
from threedrs.models.prompt import END, GROUND, PromptStyle, shared_prefix, token_id
from threedrs.models.samples import Query, SceneInputs


class SceneSession:
    """One scene, ready for questions.

    Args:
        student: in evaluation mode, on the device to run on.
        tokenizer: the student's.
        scene: on any device; teacher features are not read.
        prompt: style of the queries that will come; their shared tokens differ.
    """

    @torch.inference_mode()
    def __init__(
        self,
        student: Student,
        tokenizer: PreTrainedTokenizerBase,
        scene: SceneInputs,
        *,
        prompt: PromptStyle,
    ) -> None:
        self.student = student
        self.tokenizer = tokenizer
        self.prefix = shared_prefix(tokenizer, prompt, label_chat_tokens=False)
        self.end = token_id(tokenizer, END)
        self.ground_token = token_id(tokenizer, GROUND)
        self.cache = DynamicCache(config=student.text_config)
        scene = scene.to(student.device)
        visual = student.visual_tokens(scene)
        before = len(self.prefix.before_ids)
        ids = torch.tensor([*self.prefix.before_ids, *self.prefix.after_ids])
        text_TD = student.embed(ids.to(student.device), (), ())
        tokens_TD = torch.cat([text_TD[:before], visual.sequence_TD, text_TD[before:]])
        hidden_TD = self._run(tokens_TD)
        at_visual = slice(before, before + scene.visual_tokens)
        self.prefix_length = len(tokens_TD)
        self.objects_ND = student.object_features(scene, visual.fine_VFFD, hidden_TD[at_visual])

    @torch.inference_mode()
    def answer(self, query: Query, max_new_tokens: int) -> str:
        """Return the greedy answer, up to ``<|im_end|>`` or ``max_new_tokens``."""
        generated: list[int] = []
        hidden_TD = self._run_query(query)
        while True:
            token = int(self.student.language_model.lm_head(hidden_TD[-1]).argmax())
            if token == self.end:
                break
            generated.append(token)
            if len(generated) == max_new_tokens:
                break
            ids = torch.tensor([token], device=self.student.device)
            hidden_TD = self._run(self.student.embed(ids, (), ()))
        text = self.tokenizer.decode(generated, skip_special_tokens=True)
        assert isinstance(text, str)
        return text.strip()

    @torch.inference_mode()
    def ground(self, query: Query) -> list[float]:
        """Return the score (cosine) of each of the scene's boxes and, last, of the zero target."""
        hidden_TD = self._run_query(query, self.ground_token)
        return self.student.grounding_head(self.objects_ND, hidden_TD[-1:])[0].tolist()

    def _run_query(self, query: Query, *more: int) -> Tensor:
        """Run a question's own tokens, and ``more``, after the prefix; return hidden states."""
        assert query.prefix == self.prefix, "the query was built for another prompt style"
        self.cache.crop(self.prefix_length - self.cache.get_seq_length())
        ids = torch.cat([query.input_ids, torch.tensor(more, dtype=torch.long)])
        return self._run(self.student.embed(ids.to(self.student.device), (query,), (0,)))

    def _run(self, tokens_TD: Tensor) -> Tensor:
        """Run tokens after those in the cache; return their hidden states (T,D)."""
        past, count = self.cache.get_seq_length(), len(tokens_TD)
        device = tokens_TD.device
        mask = None
        if past and count > 1:
            mask = torch.ones(count, past + count, dtype=torch.bool, device=device)
            mask = mask.tril(diagonal=past)[None, None]
        hidden_TD, _ = self.student.run_language_model(
            tokens_TD, torch.arange(past, past + count, device=device)[None], mask, cache=self.cache
        )
        return hidden_TD
