"""Small checks of the data and of the exported file; prints one line each and fails on the first that does not hold.

    python check.py
"""

import re
from random import Random

import jinja2

import words
from dialogue import Generator, pieces
from export import TEMPLATE
from facts import held_out_wordings, load
from grammar import expand, normalise
from sums import WORDINGS, is_held_out, result


def check_patterns_match_their_answers() -> None:
    facts, jokes = load()
    for fact in facts:
        for pattern in fact.accept:
            assert re.search(pattern, fact.answer, re.IGNORECASE), (fact.id, pattern)
        assert fact.held_out, fact.id
    for joke in jokes.jokes:
        assert any(re.search(pattern, joke, re.IGNORECASE) for pattern in jokes.accept), joke
    assert len({fact.id for fact in facts}) == len(facts)


def check_held_out_facts(turns: list) -> None:
    facts, _ = load()
    held_out = held_out_wordings(facts)
    assert not [turn.user for turn in turns if normalise(turn.user) in held_out]


def check_held_out_names(turns: list) -> None:
    names = re.compile(r"\b(" + "|".join(words.NAMES_HELD_OUT) + r")\b", re.IGNORECASE)
    assert not [turn.user for turn in turns if names.search(turn.user)]


def check_sums(turns: list) -> None:
    for turn in turns:
        found = re.fullmatch(r"(-?\d+) ([-+x/]) (\d+) = (-?\d+)\.", turn.reply)
        if found:
            a, op, b, value = int(found[1]), found[2].replace("x", "*"), int(found[3]), int(found[4])
            assert result(a, op, b) == value, turn
            assert not is_held_out(a, op, b), turn


def check_grammar() -> None:
    rng = Random(0)
    assert {expand("a (b|c [d])", rng) for _ in range(100)} == {"a b", "a c", "a c d"}
    assert {expand("x[!|?]", rng) for _ in range(100)} == {"x!", "x?", "x"}
    assert all("{a}" in wording for wordings in WORDINGS.values() for wording in wordings)


def check_template(dialogues: list) -> None:
    template = jinja2.Environment().from_string(TEMPLATE)
    for system, turns in dialogues[:200]:
        messages = [{"role": "system", "content": system}] if system else []
        for turn in turns:
            messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.reply}]
        assert template.render(messages=messages) == "".join(piece.text for piece in pieces(system, turns))


def check_seed() -> None:
    first, second = Generator(7), Generator(7)
    assert [first.dialogue() for _ in range(50)] == [second.dialogue() for _ in range(50)]


def main() -> None:
    generator = Generator(1)
    dialogues = [generator.dialogue() for _ in range(20000)]
    turns = [turn for _, dialogue in dialogues for turn in dialogue]
    for check, arguments in (
        (check_patterns_match_their_answers, ()),
        (check_grammar, ()),
        (check_held_out_facts, (turns,)),
        (check_held_out_names, (turns,)),
        (check_sums, (turns,)),
        (check_template, (dialogues,)),
        (check_seed, ()),
    ):
        check(*arguments)
        print(f"{check.__name__}: holds")


if __name__ == "__main__":
    main()
