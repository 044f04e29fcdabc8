"""Wordings: patterns with choices, expanded at random, and the small noise of people's typing."""

import re
from random import Random

OPENERS = (
    "please", "hey,", "ok,", "so", "and", "hi,", "well,", "um,", "now", "excuse me,", "sorry,", "quick question:",
    "tell me,", "I wonder:", "one more question:", "by the way,", "hello,", "another question:", "alright,", "hm,",
    "just curious:", "thanks,", "good,", "also", "then", "question:", "say,", "hey you,", "hello!", "hi!", "great,",
    "can you tell me,", "could you tell me,", "do you know,", "but", "or", "oh,", "actually,", "next:", "listen,",
)  # fmt: skip
CLOSERS = (
    " please", ", please", " thanks", " exactly", " then", " now", " again", ", friend", ", bot", ", my friend", " right now",
    ", thank you", " actually", " really", " anyway", ", do you know", ", any idea", ", tell me", ", little model", " by the way",
)  # fmt: skip
QUESTION = re.compile(
    r"^(what|which|who|whom|whose|where|when|why|how|is|are|am|do|does|did|can|could|may|might|will|would|shall|should|must|has|have|was|were|any)\b",
    re.IGNORECASE,
)
# Words which mean about the same in questions to this model; one word of a message at times becomes another of its line.
SYNONYMS = [line.split("|") for line in """show|display|print|reveal|present
start|launch|begin|boot|fire up
leave|exit|quit|get out of|go out of|escape
stop|halt|interrupt|abort|cancel|cut off
delete|erase|remove|wipe|drop
clear|empty|wipe out|clean|flush
use|employ|apply|work with|utilise|try
choose|select|pick|decide on
change|alter|modify|adjust|edit|replace
make|create|build|produce|construct
get|obtain|receive|acquire
find|locate|discover|look up
explain|clarify|illustrate|spell out
fast|quick|speedy|rapid
big|large|huge|heavy
small|little|tiny|mini
save|store|keep|preserve|back up
run|execute|operate
see|view|look at|inspect|watch
write|put down|record
list|enumerate|name|give me a list of
possible|feasible|doable
supported|possible|allowed|accepted
conversation|dialogue|talk|discussion|chat
reply|answer|response|output
chat|chat program|chat app
project|software|program|application|repository
made|created|built|developed|produced
trained|taught|educated
remember|recall|keep in mind|memorise
favourite|favorite|preferred|best-loved
kind|sort|type
good|nice|fine|decent
download|fetch|pull|get
install|set up|deploy
need|require|want
measure|determine|assess
check|verify|test|examine
option|flag|switch|parameter
command|instruction|slash command
model|language model|LLM|network
speed|performance|pace
memory|RAM
number|amount|count
text|sentence|paragraph
file|document
computer|machine|PC|laptop
limits|limitations|weaknesses|boundaries
whole|entire|complete
different|another|other
now|at the moment|currently
tell|inform|let know
questions|queries|things
joke|funny story|gag
people|persons|humans""".splitlines()]
SYNONYM_LINES: dict[str, list[list[str]]] = {}
for _line in SYNONYMS:
    for _word in _line:
        SYNONYM_LINES.setdefault(_word, []).append(_line)
DROPPABLE = {"the", "a", "an", "is", "do", "I", "to", "me", "you", "of", "can", "it", "my", "your", "are", "does", "for", "in"}


def with_macros(pattern: str, macros: dict[str, str]) -> str:
    """`<name argument>` becomes the macro of that name, `*` in it the argument."""

    def replace(match: re.Match) -> str:
        return macros[match[1]].replace("*", match[2].strip())

    return re.sub(r"<(" + "|".join(macros) + r")((?:\s[^<>]*)?)>", replace, pattern) if macros else pattern


def _choice(text: str, start: int, rng: Random | None, closing: str) -> tuple[list[str], int]:
    """The alternatives of a group from `start` (behind its bracket) to `closing`, each expanded, and the end's index."""
    options, current, index = [], "", start
    while index < len(text) and text[index] != closing:
        char = text[index]
        if char in "([":
            inner, index = _choice(text, index + 1, rng, ")" if char == "(" else "]")
            current += rng.choice(inner) if char == "(" or rng.random() < 0.5 else ""
        elif char == "|":
            options.append(current)
            current = ""
        else:
            current += char
        index += 1
    return [*options, current], index


def expand(pattern: str, rng: Random) -> str:
    """One random expansion of `(a|b)` and `[optional]`, with single spaces."""
    options, end = _choice(pattern, 0, rng, "\0")
    assert end == len(pattern), pattern
    return re.sub(r"\s+", " ", rng.choice(options)).strip()


def normalise(text: str) -> str:
    """Letters, digits and signs of commands only: two wordings which are equal in it count as the same."""
    return " ".join(re.findall(r"[a-z0-9/+*{}<>:-]+", text.lower()))


def _typo(word: str, rng: Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]


def _plain(word: str) -> bool:
    return len(word) > 3 and word.isalpha() and word.islower()


def noise(text: str, rng: Random) -> str:
    """The text as somebody might type it: openers, closers, case, punctuation, typos, synonyms, dropped words.

    `{slots}` and words with signs or digits stay as they are.
    """
    words = text.split(" ")
    if len(words) > 3 and rng.random() < 0.08:
        drops = [index for index, word in enumerate(words) if word in DROPPABLE]
        if drops:
            del words[rng.choice(drops)]
    if len(words) > 2 and rng.random() < 0.3:
        index = rng.randrange(len(words))
        for line in SYNONYM_LINES.get(words[index], [])[:1]:
            words[index] = rng.choice(line)
    if rng.random() < 0.08:
        for index in rng.sample(range(len(words)), min(len(words), 2)):
            if _plain(words[index]):
                words[index] = _typo(words[index], rng)
                break
    text = " ".join(words)
    question = bool(QUESTION.match(text))
    plain = text[-1:].isalnum() or text[-1:] in "}+"
    if plain and len(words) > 1 and rng.random() < 0.09:
        text += rng.choice(CLOSERS)
    if len(words) > 1 and rng.random() < 0.16:
        opener = rng.choice(OPENERS)
        text = opener + " " + (text if text.startswith(("I ", "I'")) or not text[:2].istitle() else text[0].lower() + text[1:])
    if plain:
        draw = rng.random()
        if question:
            text += "?" if draw < 0.55 else "" if draw < 0.94 else rng.choice(["??", " ?", "?!", "."])
        else:
            text += "" if draw < 0.5 else "." if draw < 0.85 else rng.choice(["!", "?", "...", " "]).rstrip()
    case = rng.random()
    if case < 0.55:
        text = text[:1].upper() + text[1:]
    elif case < 0.75:
        text = "".join(part if part.startswith("{") else part.lower() for part in re.split(r"(\{\w+\})", text))
    elif case < 0.765:
        text = "".join(part if part.startswith("{") else part.upper() for part in re.split(r"(\{\w+\})", text))
    return text
