"""How many tokens a frame is; without torch, as the configuration is held against it."""

from dataclasses import dataclass

NATIVE_GRID = 14  # of Qwen2-VL on frames of 384 pixels


@dataclass(frozen=True, kw_only=True)
class VisualGrid:
    """The visual tokens of a frame: ``fine`` a side as projected, ``coarse`` as the model reads.

    With ``newline`` each row of the coarse grid ends with a newline token.
    """

    fine: int
    coarse: int
    newline: bool

    @property
    def frame_tokens(self) -> int:
        """The tokens of a frame in the sequence, newline tokens included."""
        return self.coarse * (self.coarse + self.newline)


LLAVA_GRID = VisualGrid(fine=27, coarse=14, newline=True)


def qwen2_vl_grid(side: int) -> VisualGrid:
    """Return Qwen2-VL's grid of ``side`` x ``side`` tokens."""
    return VisualGrid(fine=side, coarse=side, newline=False)
