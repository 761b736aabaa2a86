"""Passes over the next token of each of a scene's questions, replayed as CUDA graphs on a GPU.

A pass is some 700 small kernels, and the host needs longer to launch them than a GPU to run them.
So everything that a pass reads and changes has an address and a size that stay: keys and values of
the prefix and of the questions' own tokens, and a few numbers a question. A pass of one size is
recorded at its second use and replayed from then on, in other scenes too. Without a GPU, and where
ranks hold the parameters together, the same code runs as it is.

Sizes are rounded up, so that few are met. Rows without a question compute what nobody reads.

Memory kept between calls, beside the student, on a GPU: one scene's prefix, own tokens in at most
`KEPT_CELLS` cells, the numbers of at most `SIZES` sizes, and what a pass of the largest size takes
up meanwhile, once for all. At 7B with 32 frames the prefix is 0.39 GB and the own tokens are at
most 0.94 GB.

Axis letters: B questions, R rows, W own tokens of the longest question, T own tokens for which a
row has cells, L prefix length, N query heads, K key heads, G query heads a key head, H all heads of
queries, keys and values, d head size, D hidden size, V vocabulary, X each layer's keys and values.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn.functional import pad
from transformers.models.qwen2.modeling_qwen2 import rotate_half

from threedrs.models.attention.question_decoding import (
    KeysValues,
    QuestionAttention,
    attend_prefix,
    join,
    summed_attention,
)
from threedrs.models.backbones.fused_layers import normed_heads, query_key_value
from threedrs.models.checkpoint.decoding import Decoding
from threedrs.models.packing import on_device
from threedrs.models.pass_sizes import PassSize, PassState, rounded_rows, rounded_width
from threedrs.models.student import Student
from threedrs.models.zero3 import is_spread

SIZES = 16  # recorded sizes that are kept; the one used least recently goes first
KEPT_CELLS = 16384  # own tokens, rows times width, for which memory stays between calls
PREFIX_PARTS = (24, 12, 8, 6, 4, 3, 2, 1)  # each divides the first
FEW_QUERIES = 128  # a key head, on which one multiprocessor works


class TokenPasses:
    """The passes of one student, which stays where and as it is, over one scene after another."""

    prefix: Sequence[KeysValues]  # each layer's keys and values (1,K,L,d)
    kept_XKLd: Tensor | None  # the same in one tensor where passes are recorded
    cells: Tensor | None  # (X,at least R*T,K,d)
    size: Any  # in use, a `PassSize`
    filled: int  # cells of each row that hold an own token
    live: list[int]  # its rows whose answers go on
    turn_Rdd: Tensor  # turns each row's queries and keys to where its last token stands

    def __init__(self, student: Student) -> None:
        self.student = student
        self.decoder: Any = student.language_model.model
        # Whether ranks gather the parameters together, and so have to make the same passes.
        self.spread = any(map(is_spread, student.parameters()))
        self.side: torch.cuda.Stream | None = None
        self.captures = False
        self.release()

    def release(self) -> None:
        """Give back the memory that is kept."""
        self._wait()
        self.prefix, self.kept_XKLd = (), None  # the views, and the tensor that they are of
        self.cells, self.size = None, None
        self.sizes: dict[tuple[int, int], PassSize] = {}
        self.recorded_for: object = None

    def _wait(self) -> None:
        """Let the pass that is ahead of the host end, before its recording goes."""
        if self.captures:
            torch.cuda.synchronize()

    def answer(
        self,
        questions: QuestionAttention,
        hidden_BD: Tensor,
        position_XB: Tensor,
        decoding: Decoding,
        most: int,
    ) -> list[list[int]]:
        """Return the tokens of each answer, up to an end token or ``most``.

        ``questions`` has had its pass, and ``hidden_BD`` are last hidden states at the last tokens
        of the questions. ``position_XB`` is what the rotary embedding counts for the first tokens
        of the answers, one more for each further token.
        """
        self._start(questions, hidden_BD, position_XB, decoding)
        answers: list[list[int]] = [[] for _ in hidden_BD]
        active = list(range(len(answers)))  # the question of each row in `live`
        for step in range(most):
            rows, read = self.live, self._read_tokens()
            # A GPU that waited for the host to look at each token would idle a tenth of the time.
            # So it is ahead by one pass, whose tokens nobody reads when all answers have ended.
            ahead = self.captures and step < most - 1
            if ahead:
                self._run()
            read_R = read()
            tokens = [read_R[row] for row in rows]
            going = [row for row, token in enumerate(tokens) if token not in decoding.ends]
            for row in going:
                answers[active[row]].append(tokens[row])
            if not going or step == most - 1:
                break
            active, self.live = [active[row] for row in going], [self.live[row] for row in going]
            if not ahead:
                self._run()
        if self.cells is not None and self.cells.shape[1] > KEPT_CELLS:
            self.release()
        return answers

    def _start(
        self,
        questions: QuestionAttention,
        hidden_BD: Tensor,
        position_XB: Tensor,
        decoding: Decoding,
    ) -> None:
        self.decoding = decoding
        self.captures = hidden_BD.is_cuda and not self.spread
        key = questions.prefix[0][0]
        length = kept_tokens(key.shape[2])
        recorded_for = (key.shape, key.dtype, decoding.penalty)
        if self.recorded_for != recorded_for:
            self.release()
            self.recorded_for = recorded_for
            if self.captures:
                shape = (2 * len(questions.prefix), key.shape[1], length, key.shape[3])
                self.kept_XKLd = key.new_empty(shape)
                layers = self.kept_XKLd[:, None].unflatten(0, (-1, 2))
                self.prefix = [(k, v) for k, v in layers]
                self.side = torch.cuda.Stream()
        # All layers at once: launched one by one, so many copies take longer than a pass.
        own_XBTKd = torch.stack(_flat(questions.own)).transpose(2, 3)
        seen_BW = questions.seen_BW
        if self.captures:
            # A recording reads where it was made, and sessions of several scenes may be open.
            given = _flat(questions.prefix)
            torch.cat([one[:, :, :length] for one in given], out=self.kept_XKLd)
            # The prefix's last tokens, with which its parts would differ in length, count as own.
            rest_X1TKd = torch.stack([one[:, :, length:] for one in given]).transpose(2, 3)
            rest_XBTKd = rest_X1TKd.expand(-1, own_XBTKd.shape[1], -1, -1, -1)
            own_XBTKd = torch.cat([rest_XBTKd, own_XBTKd], 2)
            seen_BW = pad(seen_BW, (key.shape[2] - length, 0), value=True)
        else:
            self.prefix = questions.prefix
        bias_BW = torch.zeros_like(seen_BW, dtype=key.dtype).masked_fill(~seen_BW, -torch.inf)
        logits_BV = self.student.language_model.lm_head(hidden_BD)
        penalised = decoding.penalty != 1.0
        seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool) if penalised else None
        state = PassState(
            token_R=decoding.next_tokens(logits_BV, seen_BV),
            position_XR=position_XB,
            column=torch.full((1,), seen_BW.shape[1], device=key.device),
            bias_R1GT=bias_BW[:, None, None].expand(-1, -1, questions.groups, -1),
            seen_RV=seen_BV,
        )
        self._enter(state, own_XBTKd, rounded_width(seen_BW.shape[1] + 1))
        self.filled = seen_BW.shape[1]

    def _prefix_parts(self, queries: int) -> int:
        """Return in how many parts ``queries`` a key head attend to the prefix."""
        # The kernel's own way to use all of a GPU joins parts slowly where queries are few. Of many
        # queries, the parts' results are larger than what is gained.
        if not self.captures or queries > FEW_QUERIES:
            return 1
        heads, length = self.prefix[0][0].shape[1:3]
        most = torch.cuda.get_device_properties().multi_processor_count // heads
        return next((n for n in PREFIX_PARTS if n <= most and length % n == 0), 1)

    def _read_tokens(self) -> Callable[[], list[int]]:
        """Send the last tokens to the host, and return what waits for them."""
        token_R = self.size.state.token_R
        if self.spread:  # ranks that round otherwise must still make the same passes
            torch.distributed.broadcast(token_R, src=0)
        if not self.captures:
            return token_R.tolist
        host_R = token_R.to("cpu", non_blocking=True)
        sent = torch.cuda.current_stream().record_event()

        def wait() -> list[int]:
            sent.synchronize()
            return host_R.tolist()

        return wait

    def _fit(self, width: int) -> None:
        """Go on in a size with cells for ``width`` tokens, without most rows that are done."""
        rows, cells = self.size.own_XRTKd.shape[1:3]
        # Half the rows cost a pass little, so it pays to move seldom.
        if 2 * rounded_rows(len(self.live)) <= rows or width > cells:
            index = on_device(torch.tensor(self.live), self.size.state.token_R.device)
            own_XBTKd = self.size.own_XRTKd[:, index]
            self._enter(self.size.state.rows(index), own_XBTKd, rounded_width(width))

    def _enter(self, state: PassState, own_XBTKd: Tensor, width: int) -> None:
        """Go on with answers whose keys and values are given, in rows of ``width``."""
        count, taken = own_XBTKd.shape[1:3]
        rows = rounded_rows(count)
        if self.cells is None or rows * width > self.cells.shape[1]:
            self._wait()
            self.sizes.clear()  # they have their cells in the old memory
            self.cells = None
            shape = (len(own_XBTKd), rows * width, *own_XBTKd.shape[3:])
            self.cells = own_XBTKd.new_empty(shape)
        size = self.sizes.pop((rows, width), None)
        if size is None:
            # All sizes have the same memory, as only one is in use at a time.
            own_XRTKd = self.cells[:, : rows * width].unflatten(1, (rows, width))
            size = PassSize(state=state.room(rows, width), own_XRTKd=own_XRTKd)
        self.sizes[rows, width] = size
        if len(self.sizes) > SIZES:
            del self.sizes[next(iter(self.sizes))]
        # Cells that a row does not use have weight zero, but zero times a NaN is one.
        size.own_XRTKd.zero_()
        size.own_XRTKd[:, :count, :taken] = own_XBTKd
        size.state.take(state)
        self.size, self.live = size, list(range(count))

    def _run(self) -> None:
        """Run a pass: launched at a size's first use, recorded at its second, and replayed."""
        self.filled += 1
        self._fit(self.filled)
        size = self.size
        if self.captures and size.ran:
            if size.graph is None:
                # One pass runs at a time, so all need the memory of the largest only. A pool ends
                # with its last graph.
                others = [other.graph for other in self.sizes.values() if other.graph is not None]
                pool = others[0].pool() if others else None
                graph = torch.cuda.CUDAGraph()
                # Other threads may go on with work of their own.
                with torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):
                    self._pass(size)
                size.graph = graph
            size.graph.replay()
        else:
            # What a library prepares at first use must not fall into the recording.
            self._pass(size)
            size.ran = True

    def _pass(self, size: PassSize) -> None:
        """Read the last tokens and put the next ones in their place; the host asks for nothing."""
        state = size.state
        if state.seen_RV is not None:
            state.seen_RV.scatter_(1, state.token_R[:, None], True)
        state.bias_R1GT.index_fill_(3, state.column, 0)
        embedded_1RD = self.student.embed(state.token_R)[None]
        cos, sin = self.decoder.rotary_emb(embedded_1RD, state.position_XR)
        half_dd = rotate_half(torch.eye(cos.shape[-1], dtype=cos.dtype, device=cos.device))
        # Turning as a product: one kernel where the element-wise way takes five.
        self.turn_Rdd = torch.diag_embed(cos[0]) + half_dd * sin[0][:, None]
        output = self.decoder(
            inputs_embeds=embedded_1RD,
            position_ids=state.position_XR,
            attention_mask={"full_attention": None},
            use_cache=False,
            passes=self,
        )
        logits_RV = self.student.language_model.lm_head(output.last_hidden_state[0])
        state.token_R.copy_(self.decoding.next_tokens(logits_RV, state.seen_RV))
        state.column += 1
        state.position_XR += 1

    def attend(self, attention: Any, normed_1RD: Tensor) -> Tensor:
        """Return what an attention layer's last product takes in (1,R,C).

        Keys and values have taken their cells then.
        """
        index, size = attention.layer_idx, self.size
        own_key_RTKd, own_value_RTKd = size.own_XRTKd[2 * index : 2 * index + 2]
        keys = own_key_RTKd.shape[2]
        heads_RHd = query_key_value(attention, normed_1RD)[0]
        heads_RHd = heads_RHd.unflatten(1, (-1, self.turn_Rdd.shape[-1]))
        value_RKd = heads_RHd[:, -keys:]
        turned_RHd = normed_heads(attention, heads_RHd[:, :-keys], keys) @ self.turn_Rdd
        key_RKd = turned_RHd[:, -keys:]
        query_RKGd = turned_RHd[:, :-keys].unflatten(1, (keys, -1))
        with _beside(self.side):
            own_key_RTKd.index_copy_(1, size.state.column, key_RKd[:, None])
            own_value_RTKd.index_copy_(1, size.state.column, value_RKd[:, None])
            own = summed_attention(
                query_RKGd,
                own_key_RTKd.transpose(1, 2),
                own_value_RTKd.transpose(1, 2),
                attention.scaling,
                size.state.bias_R1GT.expand(-1, keys, -1, -1),
            )
        shared = attend_prefix(
            query_RKGd,
            self.prefix[index],
            attention.scaling,
            self._prefix_parts(len(query_RKGd) * query_RKGd.shape[2]),
        )
        if self.side is not None:
            torch.cuda.current_stream().wait_stream(self.side)
        return join(shared, own).flatten(1)[None]


def kept_tokens(prefix: int) -> int:
    """Return how many of a prefix's tokens are kept as such; the rest count as own."""
    # As many as all numbers of parts divide. A prefix without images is shorter than that, and
    # there is no softmax over no key: what the kernel gives then is not a number.
    return prefix // PREFIX_PARTS[0] * PREFIX_PARTS[0] or prefix


@contextmanager
def _beside(side: torch.cuda.Stream | None) -> Iterator[None]:
    """Do what is inside beside what the GPU does next; small kernels leave most of it idle."""
    if side is None:
        yield
        return
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield


def _flat(layers: Sequence[KeysValues]) -> list[Tensor]:
    """Return layer by layer keys and values."""
    return [tensor for layer in layers for tensor in layer]
