"""What `threedrs ask` and `threedrs chat` are asked, and what they say; nothing here loads torch.

A reply is a JSON object. It repeats what was asked and holds ``answer``, a text, or of a
description of an object ``winner`` (a box, or null for "none of them"), ``none``, the score of that
answer, ``boxes``, the best ones first, and ``image``, the path of an image of them.
"""

from typing import Any

from pydantic import model_validator

from threedrs.config.section import Section, parse_object
from threedrs.errors import ConfigError
from threedrs.tasks.record import check_unmarked, is_box

EMPTY = "(the model's answer is empty)"
HELP = """A line is a question about the scene. Each one stands alone, as in training.
/ground TEXT    find the object that TEXT describes
/box X,Y,Z,DX,DY,DZ    describe what is in this box (centre and size in metres)
/history    what was asked so far
/help, help or ?    these lines
/quit, quit, exit or Ctrl-D    end"""


class Request(Section):
    """One thing to ask; exactly one of the keys is given."""

    from_yaml = False  # but JSON, or typed as it is

    question: str | None = None
    """A question about the room."""
    ground: str | None = None
    """What the object to find looks like."""
    box: list[float] | None = None
    """Centre and size in metres, world frame: describe what is in it."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> "Request":
        given = [key for key in ("question", "ground", "box") if getattr(self, key) is not None]
        if len(given) != 1:
            told = f"not {' and '.join(given)}" if given else "none is given"
            raise ConfigError(f"give one of question, ground, box; {told}")
        if self.box is not None and not is_box(self.box):
            raise ConfigError(f"box {self.box}: give six numbers, centre x, y, z and size x, y, z")
        text = self.question if self.ground is None else self.ground
        if text is not None and not text.strip():
            raise ConfigError(f"the {given[0]} is empty")
        try:
            check_unmarked(text or "")
        except ValueError as error:
            raise ConfigError(f"the {given[0]} {error}; leave it out") from error
        return self

    def to_json(self) -> dict[str, Any]:
        """Return what is asked, which its reply repeats."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_json(cls, line: str) -> "Request":
        """Return the request of a line of JSON.

        Raises:
            ConfigError: the line is not such an object.
        """
        example = 'expected an object such as {"question": "What is it?"}'
        return cls(**parse_object(line, "", example))

    @classmethod
    def from_text(cls, line: str) -> "Request":
        """Return the request of a typed line.

        Raises:
            ConfigError: it begins with a slash and is not one of the commands.
        """
        command, _, rest = line.partition(" ")
        if command == "/ground":
            return cls(ground=rest)
        if command == "/box":
            return cls(box=parse_box(rest))
        if command.startswith("/"):
            raise ConfigError(f"{command}: is not a command; /help lists them")
        return cls(question=line)


def parse_box(text: str) -> list[float]:
    """Return the numbers of ``cx,cy,cz,dx,dy,dz``.

    Raises:
        ConfigError: they are not numbers.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"box {text}: give six numbers, cx,cy,cz,dx,dy,dz") from error


def reply_lines(reply: dict[str, Any]) -> list[str]:
    """Return a reply as lines, the winning answer first."""
    if "answer" in reply:
        return [reply["answer"] or EMPTY]
    none = f"-  {reply['none']:+.3f}  none of the {reply['of']} boxes"
    boxes = [
        f"{rank}  {box['score']:+.3f}  box {box['id']} {box['label']}  "
        f"[{', '.join(f'{number:.2f}' for number in box['box'])}]"
        for rank, box in enumerate(reply["boxes"], start=1)
    ]
    ahead = sum(box["score"] > reply["none"] for box in reply["boxes"])
    image = f"image: {reply['image']} (above: rank, score, box with its centre and size in metres)"
    return [*boxes[:ahead], none, *boxes[ahead:], image]
