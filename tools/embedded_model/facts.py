"""The fixed questions and answers of the .toml files beside this one."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random

from grammar import expand, noise, normalise, with_macros
from phrasing import action_pattern, clutter
from turn import Turn

FOLDER = Path(__file__).parent
MACROS: dict[str, str] = tomllib.loads((FOLDER / "facts_usage.toml").read_text())["macros"]
NO_MORE = "That is all I know about it. README.md and /help say more."
TELL_MORE = ["tell me more", "more", "more please", "(can you|could you) (tell|say) [me] more[ about (it|that)|]", "(give me|show me|do you have|have you got|is there) an example", "an example[ please|]", "for example", "explain (more|it in more detail)", "(go on|more details|details please|what else)", "can you give [me] an example", "say more about (it|that)", "anything else about (it|that)", "elaborate", "in more detail please", "how exactly", "such as"]  # fmt: skip
TELL_MORE_HELD_OUT = ["would you give me some example?", "I'd like to hear more about that", "is there more to say about it?"]
ELLIPSIS = ["and {t}", "what about {t}", "how about {t}", "and what about {t}", "and what is {t}", "now {t}", "then {t}", "the same for {t}", "and how about {t}", "ok, and {t}", "also {t}", "and {t} please", "next {t}", "what of {t}"]  # fmt: skip
ELLIPSIS_HELD_OUT = ["okay, but what about {t}?", "fine, now tell me the same about {t}", "and what would you say on {t}?"]
BARE = ["{t}", "{t}", "{t} please", "explain {t}", "tell me about {t}", "what do you know about {t}", "something about {t}", "I want to know about {t}", "I have a question about {t}", "what is {t}", "info about {t}", "tell me something about {t}", "what's {t}", "I would like to know more about {t}", "can you tell me about {t}", "{t}: what is it", "describe {t}"] + ["<what> {t}"] * 8  # fmt: skip


@dataclass
class Fact:
    id: str
    category: str
    ask: list[str]
    held_out: list[str]
    topic: list[str]
    answer: str
    accept: list[str]
    more: str
    actions: list[list[str]]
    weight: float  # how often it is asked, against the others of its category

    def turn(self, rng: Random) -> Turn:
        draw = rng.random()
        if self.topic and draw < 0.12:
            text = expand(with_macros(rng.choice(BARE), MACROS), rng).replace("{t}", rng.choice(self.topic))
        elif self.actions and draw < 0.55:
            text = expand(with_macros(action_pattern(self.actions, rng), MACROS), rng)
        else:
            text = expand(rng.choice(self.ask), rng)
        return Turn(noise(clutter(text, rng), rng), self.answer, self.accept, self.category)

    def ellipsis(self, rng: Random, held_out: bool = False) -> Turn:
        """A question for this fact which names only its topic, as after another question."""
        if held_out:
            text = rng.choice(ELLIPSIS_HELD_OUT).replace("{t}", rng.choice(self.topic))
            return Turn(text[:1].upper() + text[1:], self.answer, self.accept, "follow-up")
        return Turn(noise(rng.choice(ELLIPSIS).replace("{t}", rng.choice(self.topic)), rng), self.answer, self.accept, "follow-up")

    def more_turn(self, rng: Random, held_out: bool = False) -> Turn:
        text = rng.choice(TELL_MORE_HELD_OUT) if held_out else noise(expand(rng.choice(TELL_MORE), rng), rng)
        keyword = ["example|talk|Gemma|deno|x86|progress|first start|patient"] if self.more != NO_MORE else ["all I know"]
        return Turn(text[:1].upper() + text[1:] if held_out else text, self.more, keyword, "follow-up")


@dataclass
class Jokes:
    jokes: list[str]
    ask: list[str]
    held_out: list[str]
    again: list[str]
    again_held_out: list[str]
    accept: list[str]

    def turn(self, rng: Random, state: dict, again: bool, held_out: bool = False) -> Turn:
        """The next joke of this dialogue."""
        patterns = (self.again_held_out if again else self.held_out) if held_out else self.again if again else self.ask
        text = expand(rng.choice(patterns), rng)
        joke = self.jokes[min(state["jokes"], len(self.jokes) - 1)]
        state["jokes"] += 1
        return Turn(text[:1].upper() + text[1:] if held_out else noise(text, rng), joke, self.accept, "small talk")


def load() -> tuple[list[Fact], Jokes]:
    """All facts, and the jokes."""
    usage, project, talk = (
        tomllib.loads((FOLDER / name).read_text()) for name in ("facts_usage.toml", "facts_project.toml", "small_talk.toml")
    )
    actions = tomllib.loads((FOLDER / "actions.toml").read_text())["actions"]
    unused = set(actions) - {entry["id"] for source in (usage, project, talk) for entry in source["fact"]}
    assert not unused, f"actions.toml names no fact: {unused}"
    facts = [
        Fact(
            id=entry["id"],
            category=category,
            ask=[with_macros(pattern, MACROS) for pattern in entry["ask"]],
            held_out=[question[:1].upper() + question[1:] for question in entry["held_out"]],
            topic=entry.get("topic", []),
            answer=entry["answer"],
            accept=entry["accept"],
            more=entry.get("more", NO_MORE),
            actions=actions.get(entry["id"], []),
            weight=entry.get("weight", 1),
        )
        for category, source in (("usage", usage), ("project", project), ("small talk", talk))
        for entry in source["fact"]
    ]
    jokes = talk["jokes"]
    return facts, Jokes(
        [entry["answer"] for entry in talk["joke"]], jokes["ask"], jokes["held_out"], jokes["again"], jokes["again_held_out"],
        jokes["accept"],
    )  # fmt: skip


def held_out_wordings(facts: list[Fact]) -> set[str]:
    """Normalised questions which training must not contain."""
    fresh = tomllib.loads((FOLDER / "fresh.toml").read_text())
    asked = [question for questions in fresh["fresh"].values() for question in questions]
    asked += [question for other in fresh["other"] for question in other["user"]]
    return {normalise(question) for question in asked + [question for fact in facts for question in fact.held_out]}
