"""One exchange of a dialogue."""

from dataclasses import dataclass


@dataclass
class Turn:
    """What the user says, what the model shall say, and the patterns which a right reply all matches."""

    user: str
    reply: str
    accept: list[str]
    category: str
