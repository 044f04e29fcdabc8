"""Makes the evaluation: dialogues in wordings, with names and sums that training never contains.

    python evaluation.py        # writes packages/models/embedded/evaluation.json

A case is a list of user turns; a turn with `accept` passes when every pattern (a regular expression, any case) is found in
the model's reply. A case passes when all its turns do. The model's own replies stay in the dialogue.
"""

import argparse
import json
import tomllib
from pathlib import Path
from random import Random

from dialogue import Generator, repeat_turn
from facts import FOLDER, Fact
from memory import ATTRIBUTES, ask_turn, tell_turn
from sums import hard_turn, sum_turn
from turn import Turn
from unknown import unknown_turn

SEED = 20240


def case(category: str, turns: list[Turn], checked: list[int] | None = None) -> dict:
    """A case of which the turns with these indices (all, if none are given) are checked."""
    return {
        "category": category,
        "turns": [
            {"user": turn.user, **({"accept": turn.accept} if checked is None or index in checked else {})}
            for index, turn in enumerate(turns)
        ],
    }


def new_state() -> dict:
    return {"known": {}, "jokes": 0}


def fresh_cases(facts: list[Fact]) -> list[dict]:
    """The cases of fresh.toml."""
    source = tomllib.loads((FOLDER / "fresh.toml").read_text())
    by_id = {fact.id: fact for fact in facts}
    cases = [
        case("fresh questions", [Turn(question, "", by_id[name].accept, "")])
        for name, questions in source["fresh"].items()
        for question in questions
    ]
    for other in source["other"]:
        for index, text in enumerate(other["user"]):
            accept = [other["accept_each"][index]] if "accept_each" in other else other["accept"]
            cases.append(case("fresh " + other["category"], [Turn(text, "", accept, "")]))
    for dialogue in source["dialogue"]:
        cases.append(case("fresh dialogues", [Turn(user, "", [accept], "") for user, accept in dialogue["turns"]]))
    return cases


def evaluation() -> list[dict]:
    rng = Random(SEED)
    generator = Generator(SEED)
    facts, jokes = generator.facts, generator.jokes
    asked = [Turn(question, "", fact.accept, fact.category) for fact in facts for question in fact.held_out]
    cases = [case(turn.category, [turn]) for turn in asked]
    cases += [case("small talk", [Turn(text, "", jokes.accept, "")]) for text in jokes.held_out]

    def between(most: int) -> list[Turn]:
        return [rng.choice((rng.choice(asked), sum_turn(rng, True), unknown_turn(rng, True))) for _ in range(rng.randint(0, most))]

    for index in range(100):
        attribute = ATTRIBUTES[0] if index < 50 else ATTRIBUTES[1 + index % (len(ATTRIBUTES) - 1)]
        state, others = new_state(), between(4)
        turns = [tell_turn(rng, state, True, attribute), *others, ask_turn(rng, state, True, attribute)]
        cases.append(case("name" if index < 50 else "other memory", turns, [0, len(turns) - 1]))
    for attribute in ATTRIBUTES:
        others = between(2)
        cases.append(case("not told", [*others, ask_turn(rng, new_state(), True, attribute)], [len(others)]))
    for _ in range(15):
        state = new_state()
        attributes = rng.sample(ATTRIBUTES[:5], 3)
        turns = [tell_turn(rng, state, True, attribute) for attribute in attributes]
        turns += [ask_turn(rng, state, True, attribute) for attribute in rng.sample(attributes, 3)]
        cases.append(case("several facts about the user", turns))

    sums = [sum_turn(rng, held_out=True) for _ in range(110)]
    cases += [case("sums", [turn]) for turn in sums if turn.category == "sum"][:100]
    cases += [case("hard sums", [hard_turn(rng)]) for _ in range(15)]
    for _ in range(15):
        state = new_state()
        turns = [sum_turn(rng, True, state) for _ in range(3)]
        cases.append(case("sums going on", turns))
    for kind, count in (("world", 40), ("write", 12), ("now", 8), ("remark", 5), ("private", 5), ("command", 5)):
        cases += [case("unknown", [unknown_turn(rng, True, kind)]) for _ in range(count)]

    for _ in range(30):
        first, second = rng.sample([fact for fact in generator.with_topic if fact.category == "usage"], 2)
        turns = [Turn(rng.choice(first.held_out), "", first.accept, ""), second.ellipsis(rng, held_out=True)]
        cases.append(case("follow-up", turns, [1]))
    for fact in rng.sample(generator.with_topic, 12):
        cases.append(case("follow-up", [Turn(rng.choice(fact.held_out), "", [], ""), fact.more_turn(rng, True)], [1]))
    for _ in range(5):
        state = new_state()
        told = [jokes.turn(rng, state, again, held_out=True) for again in (False, True, True)]
        for turn, joke in zip(told, jokes.jokes):
            turn.accept = [joke.split()[-1].strip('.?"')]
        cases.append(case("follow-up", told))
    cases += [case("repeat", [repeat_turn(rng, held_out=True)]) for _ in range(10)]
    for _ in range(15):
        state, attribute = new_state(), rng.choice(ATTRIBUTES[:4])
        turns = [tell_turn(rng, state, True, attribute), *[turn for _ in range(3) for turn in between(4)]]
        turns.append(ask_turn(rng, state, True, attribute))
        cases.append(case("long dialogues", turns, [0, len(turns) - 1]))
    return cases + fresh_cases(facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "../../packages/models/embedded/evaluation.json")
    args = parser.parse_args()
    cases = evaluation()
    lines = ",\n".join("    " + json.dumps(entry) for entry in cases)
    note = "Made by tools/embedded_model/evaluation.py: greedy replies; accept holds regular expressions, any case, all to be found."
    args.out.write_text(f'{{\n  "note": {json.dumps(note)},\n  "cases": [\n{lines}\n  ]\n}}\n')
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
