"""Whole dialogues: turns of all kinds after each other, as token ids with a mask of what the model shall say."""

from dataclasses import dataclass
from random import Random

import words
from facts import Fact, held_out_wordings, load
from grammar import expand, noise, normalise
from memory import ATTRIBUTES, ask_turn, tell_turn
from sums import sum_turn
from turn import Turn
from unknown import unknown_turn

SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant", "You are a friendly chatbot.", "Answer briefly.", "Be polite.", "Answer in one sentence.", "You are the demonstration model of mllm for Deno.", "You are a pirate.", "You are a patient teacher.", "Be concise.", "You are a small language model.", "Please be nice to me.", "Speak like Shakespeare.", "You are an expert programmer.", "Help the user with this project."]  # fmt: skip
REPEAT = ["repeat after me: {x}", "say {x}", "repeat: {x}", "repeat {x}", "please say {x}", "say this: {x}", "repeat the words {x}", "can you say {x}", "write {x}", "echo {x}"]  # fmt: skip
REPEAT_HELD_OUT = ["please repeat the following: {x}", "I want you to say {x}", "echo these words: {x}"]

# How often a turn is of which kind.
KINDS = {"usage": 26, "project": 26, "small talk": 20, "joke": 2, "tell": 13, "ask": 8, "sum": 36, "unknown": 14, "repeat": 3}
FIXED = {"usage", "project", "small talk", "unknown"}
TURNS = [1] * 30 + [2] * 8 + [3] * 5 + [4, 4, 4, 5, 6, 7, 8, 10, 14, 18]


def repeat_turn(rng: Random, held_out: bool = False) -> Turn:
    chosen = [
        (words.made_up if held_out else words.invented)(rng) if rng.random() < 0.5 else rng.choice(words.COLOURS + words.FOODS + words.JOBS + words.PETS)
        for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))
    ]
    text, phrase = rng.choice(REPEAT_HELD_OUT if held_out else REPEAT), " ".join(chosen)
    text = text if held_out else noise(text, rng).rstrip(".?! ")
    text = text[:1].upper() + text[1:] if held_out else text
    return Turn(text.replace("{x}", phrase), f"You want me to say: {phrase}", [phrase], "repeat")


class Generator:
    """Dialogues from a seed; the same seed gives the same dialogues."""

    def __init__(self, seed: int):
        self.rng = Random(seed)
        self.facts, self.jokes = load()
        self.by_category = {
            category: [fact for fact in self.facts if fact.category == category] for category in ("usage", "project", "small talk")
        }
        self.with_topic = [fact for fact in self.facts if fact.topic]
        self.forbidden = held_out_wordings(self.facts)

    def _turn(self, state: dict, previous: object) -> tuple[Turn, object]:
        """A turn, and what a follow-up may refer to: a fact, the jokes or nothing."""
        rng = self.rng
        if isinstance(previous, Fact) and previous.topic and rng.random() < 0.22:
            if rng.random() < 0.4:
                return previous.more_turn(rng), None
            fact = rng.choice([other for other in self.with_topic if other.category == previous.category])
            return fact.ellipsis(rng), fact
        if previous is self.jokes and rng.random() < 0.4:
            return self.jokes.turn(rng, state, again=True), self.jokes
        if "last" in state and rng.random() < 0.4:
            return sum_turn(rng, state=state), None
        state.pop("last", None)
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        if state["known"] and rng.random() < 0.08:
            kind = "ask"
        if kind in self.by_category:
            facts = self.by_category[kind]
            fact = rng.choices(facts, [fact.weight for fact in facts])[0]
            return fact.turn(rng), fact
        if kind == "joke":
            return self.jokes.turn(rng, state, again=False), self.jokes
        if kind == "tell":
            return tell_turn(rng, state), None
        if kind == "ask":
            return ask_turn(rng, state), None
        if kind == "sum":
            return sum_turn(rng, state=state), None
        if kind == "repeat":
            return repeat_turn(rng), None
        return unknown_turn(rng), None

    def _interview(self, state: dict) -> list[Turn]:
        """Some things about the user, one after the other, and then questions for them in another order."""
        rng = self.rng
        told = rng.sample(ATTRIBUTES, rng.choice((2, 3, 3, 4)))
        turns = [tell_turn(rng, state, attribute=attribute) for attribute in told]
        if rng.random() < 0.3:
            turns.append(self._turn(state, None)[0])
        return turns + [ask_turn(rng, state, attribute=attribute) for attribute in rng.sample(told, len(told))]

    def dialogue(self) -> tuple[str | None, list[Turn]]:
        """A system message or none, and the turns."""
        rng = self.rng
        state: dict = {"known": {}, "jokes": 0}
        system = rng.choice(SYSTEM) if rng.random() < 0.25 else None
        turns = self._interview(state) if rng.random() < 0.06 else []
        previous: object = None
        for _ in range(0 if turns else rng.choice(TURNS)):
            turn, previous = self._turn(state, previous)
            while normalise(turn.user) in self.forbidden:
                turn, previous = self._turn(state, None)
            turns.append(turn)
        return system, turns


@dataclass
class Piece:
    """A text, and whether the model says it."""

    text: str
    said: bool
    fixed: bool = False  # a reply without anything of the dialogue in it


def pieces(system: str | None, turns: list[Turn]) -> list[Piece]:
    """The ChatML text of a dialogue, as the chat template renders it."""
    out = [Piece(f"<|im_start|>system\n{system}<|im_end|>\n", False)] if system else []
    for turn in turns:
        out.append(Piece(f"<|im_start|>user\n{turn.user}<|im_end|>\n<|im_start|>assistant\n", False))
        out.append(Piece(f"{turn.reply}<|im_end|>", True, turn.category in FIXED))
        out.append(Piece("\n", False))
    return out
