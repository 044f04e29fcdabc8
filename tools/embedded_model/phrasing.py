"""Questions built from verbs and objects, and the clutter around real questions."""

from random import Random

import words

FRAMES = """<how> V O|<how> V O|<how> V O|how (can|could|may|might|will|would|should|must) O be P|how is O P|how does one V O|what Vs O|
which (command|task|option|subcommand|way|thing) Vs O|G O|which (command|task|option) is for G O|what is the command for G O|
is G O possible|help with G O|I want O P|I want to have O P|can O be P|is it possible that O is P|what do I do for G O|V O|V O please|
tell me about G O|I have to V O|can you V O|could you V O [for me]|please V O|I'd like O to be P|what if I want to V O|
do you know how O is P|how does G O work|is there a (command|way|task|option) (that Vs|which Vs|to V|for G) O|
is there (anything|something) to V O|with which (command|option|task) do I V O|by what (means|command) can I V O|how shall I V O|
where (can|do|could) I V O|I'm looking for a way of G O|I would love to V O|I can't V O|I'm unable to V O|why can't I V O|
let me V O|we want to V O|what must be done to V O|who can V O|what should one do to V O|in which way (is O P|can I V O)|
my question is how to V O|what about G O|how about G O|O should be P|O must be P|I need O P|I wish to V O|when I want to V O what do I type|
tell me the (command|task|option) (for G|that Vs|to V) O|give me the command to V O|say how to V O|any command for G O|
suppose I want to V O|does something V O|is O P by some command|explain G O|G O: how|the command that Vs O|it would be nice to V O|
do I have a chance to V O|someone wants to V O, how|are you able to V O|may I V O|might I V O|how would you V O|how do people V O|
what do users type to V O|I plan to V O|I intend to V O|I am going to V O|show me the way to V O|which command will V O|what will V O|
what can V O|what helps to V O|I tried to V O|it's time to V O|can I have O P|could O be P|may O be P|when is O P|where is O P""".replace("\n", "").split("|")  # fmt: skip
# `|` inside round brackets separates choices, so the frames are put together again.
_joined: list[str] = []
for _part in FRAMES:
    if _joined and _joined[-1].count("(") > _joined[-1].count(")"):
        _joined[-1] += "|" + _part
    else:
        _joined.append(_part)
FRAMES = _joined

IRREGULAR = {
    "get": "got", "find": "found", "see": "seen", "show": "shown", "set": "set", "give": "given", "write": "written", "keep": "kept",
    "put": "put", "read": "read", "bring": "brought", "begin": "begun", "leave": "left", "quit": "quit", "shut": "shut", "go": "gone",
    "break": "broken", "cut": "cut", "send": "sent", "feed": "fed", "take": "taken", "choose": "chosen", "run": "run", "build": "built",
    "make": "made", "understand": "understood", "know": "known", "throw": "thrown", "have": "had", "do": "done", "split": "split",
    "forget": "forgotten", "sell": "sold", "redo": "redone", "speed": "sped", "export": "exported", "talk": "talked",
}  # fmt: skip
DOUBLED = {"get", "set", "put", "begin", "quit", "shut", "cut", "run", "stop", "drop", "forget", "reset", "split", "chat", "ship", "pipe!"}
VOWELS = "aeiou"


def inflect(verb: str) -> tuple[str, str, str]:
    """Third person, participle and gerund of a verb, whose first word is the one that changes."""
    head, _, tail = verb.partition(" ")
    tail = " " + tail if tail else ""
    if head.endswith(("s", "sh", "ch", "x", "o")):
        third = head + "es"
    elif head.endswith("y") and head[-2] not in VOWELS:
        third = head[:-1] + "ies"
    else:
        third = "has" if head == "have" else head + "s"
    stem = head + head[-1] if head in DOUBLED else head
    gerund = (head[:-1] if head.endswith("e") and not head.endswith("ee") and head != "be" else stem) + "ing"
    if head in IRREGULAR:
        past = IRREGULAR[head]
    elif head.endswith("e"):
        past = head + "d"
    elif head.endswith("y") and head[-2] not in VOWELS:
        past = head[:-1] + "ied"
    else:
        past = stem + "ed"
    return third + tail, past + tail, gerund + tail


def action_pattern(actions: list[list[str]], rng: Random) -> str:
    """A pattern of grammar.py (macros and choices still in it) for one of the actions."""
    verbs, objects = rng.choice(actions)
    verb, thing = rng.choice(verbs.split("|")), rng.choice(objects.split("|"))
    third, past, gerund = inflect(verb)
    forms = {"V": verb, "Vs": third, "P": past, "G": gerund, "O": thing}
    out = []
    for word in rng.choice(FRAMES).split(" "):
        core = word.strip("()[],:?")
        first, _, last = core.partition("|")
        if core in forms:
            word = word.replace(core, forms[core])
        elif first in forms or last in forms:
            parts = [forms.get(part, part) for part in core.split("|")]
            word = word.replace(core, "|".join(parts))
        out.append(word)
    return " ".join(out)


BEFORE = """I am new here.|I have just installed this.|My boss wants to know.|I read the README.|I don't have much time.|One thing.|Listen.|
I need your help.|I'm lost.|I have been thinking.|I have a problem.|Good.|That was nice.|I can't find it.|I am confused.|Maybe you know it.|
It's my first day with this.|Let me ask you something.|A colleague asked me.|I forgot it.|You are small.|I like this.|Not so fast.|Good answer.|
I'm curious.|This is fun.|Now something else.|I want to learn.|Be quick.|I'm a beginner.|I'm not sure.|Someone told me about it.|
I looked everywhere.|Don't be long.|You told me before.|I use Linux.|I'm on my laptop.|Right.|Sorry to bother you.|Here is a question.""".replace("\n", "").split("|")  # fmt: skip
AFTER = """I can't find it.|I'm lost.|It's urgent.|I forgot.|I need it.|Please be short.|Thank you.|Just curious.|I have no idea.|Can you tell me?|
Do you know?|Tell me.|I'm new here.|Thanks in advance.|My friend asked.|Is there a command?|What do I do?|What now?|Any idea?|Help.|
How does that work?|I would like to know.""".replace("\n", "").split("|")  # fmt: skip
COMMON = """actually really very just quickly simply maybe properly somehow usually normally often always never ever again still already
today tomorrow later soon once twice here there easily correctly directly finally personally exactly basically certainly kindly
good bad new old young nice long short high low great own main common certain special simple easy hard quick safe free full clear
proper specific particular general usual general exact important useful helpful
thing things way ways person user users friend people man woman day week year hour minute time place part point case reason idea
example kind problem matter moment work job home office company team colleague boss machine system computer laptop screen window
terminal shell keyboard key word words line number name list page book paper note disk folder drive
want need like try mean think believe wonder hope wish guess suppose consider expect happen seem become come go take bring give
put keep hold turn move follow begin end finish stop start continue allow let help matter learn teach understand speak talk listen
hear look watch read write work play live stay wait sit stand walk
some any every each many much more most few several another such same whole both either neither enough quite rather too also
about above after against along among around before behind between during inside near over since through toward under until upon
within without because although while unless whether somebody anyone everything nothing something anything""".split()  # fmt: skip


def clutter(text: str, rng: Random) -> str:
    """At times a sentence around the question, a strange or superfluous word in it, or keywords only."""
    draw = rng.random()
    parts = text.split(" ")
    if draw < 0.05:
        return rng.choice(BEFORE) + " " + text[:1].upper() + text[1:]
    if draw < 0.085:
        return text + (". " if text[-1].isalnum() else " ") + rng.choice(AFTER)
    if draw < 0.20 and len(parts) > 3:
        at = rng.randrange(len(parts))
        if not parts[at].startswith(("/", "-", "{", "`")):
            strange = words.made_up(rng) if rng.random() < 0.35 else rng.choice(COMMON)
            insert = rng.random() < 0.55 or any(char.isupper() for char in parts[at])
            parts[at : at + (0 if insert else 1)] = [strange]
        return " ".join(parts)
    return text
