"""The student under its former place; see `threedrs.models.student`."""

from threedrs.models.student import Student

__all__ = ["Student"]
