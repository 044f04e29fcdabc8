"""Small sums in many wordings. Pairs of operands for which `is_held_out` holds never occur in training."""

from random import Random

from grammar import expand, noise
from turn import Turn

TOO_HARD = "That is too hard for me: I can only add and subtract numbers up to 99 and multiply up to 12. A real model can do more."
NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty""".split()
SIGN = {"+": "+", "-": "-", "*": "x", "/": "/"}

ASK = "(what is|what's|whats|how much is|calculate|compute|work out|solve|what does * make|tell me|please calculate|can you calculate|what do you get for|do you know|the result of|what equals|give me|could you work out|add up|find|evaluate|what would * be|I need|how many is|let's do|can you solve|what will * be|answer this:|)"
ASK_HELD_OUT = "(please tell me the result of|I'd like you to compute|how much do I get for|any idea what * is|quickly,)"
WORDINGS = {
    "+": ["{a}+{b}", "{a} + {b}", "{a} plus {b}", "{a} and {b}", "{a} added to {b}", "the sum of {a} and {b}", "{a}+{b}="],
    "-": ["{a}-{b}", "{a} - {b}", "{a} minus {b}", "{a} less {b}", "the difference between {a} and {b}", "{a} - {b} =", "{a} take away {b}"],
    "*": ["{a}*{b}", "{a} * {b}", "{a} x {b}", "{a} times {b}", "{a} multiplied by {b}", "the product of {a} and {b}", "{a}x{b}"],
    "/": ["{a}/{b}", "{a} / {b}", "{a} divided by {b}", "{a} : {b}"],
}  # fmt: skip
SENTENCES = {
    "+": ["add {a} and {b}", "add {a} to {b}", "sum {a} and {b}", "if I have {a} apples and get {b} more, how many do I have", "I have {a} coins and find {b} more, how many are that", "there are {a} cats and {b} dogs, how many animals are there", "{a} plus {b} is what", "{a} plus {b} equals", "I bought {a} eggs and {b} more, how many eggs do I have", "I have {a} pens and my friend has {b}, how many do we have", "put {a} and {b} together", "count {a} and {b} together", "I had {a} points and won {b} more, how many points are that", "{a} and {b} make", "how much do {a} and {b} give", "I owned {a} stamps and got {b} more, how many stamps do I own", "what comes out of {a} plus {b}", "can you add {a} and {b}"],
    "-": ["subtract {b} from {a}", "take {b} from {a}", "if I have {a} apples and eat {b}, how many are left", "I had {a} coins and lost {b}, how many remain", "{a} minus {b} is what", "{a} minus {b} equals", "can you subtract {b} from {a}", "there were {a} birds and {b} flew away, how many are left", "I have {a} euros and spend {b}, what is left", "how much remains if I take {b} from {a}", "I had {a} cookies and gave away {b}, how many do I have left", "what is left of {a} without {b}", "if you subtract {b} from {a}, what is left", "{a} pears minus {b} pears", "I have {a} apples and give away {b}, how many are left", "what comes out of {a} minus {b}"],
    "*": ["multiply {a} by {b}", "multiply {a} and {b}", "{a} times {b} is what", "{a} times {b} equals", "{a} boxes with {b} eggs each, how many eggs", "can you multiply {a} and {b}", "if I buy {a} bags of {b} apples, how many apples do I have", "{a} shelves with {b} books each, how many books", "what comes out of {a} times {b}", "{a} rows of {b} trees, how many trees are that", "how much is {a} multiplied with {b}", "I see {a} tables with {b} cups each, how many cups"],
    "/": ["divide {a} by {b}", "{a} divided by {b} is what", "share {a} apples among {b} people, how many does each get", "can you divide {a} by {b}", "split {a} into {b} equal parts", "what comes out of {a} divided by {b}", "if {b} people share {a} sweets, how many has each", "what do we get dividing {a} by {b}"],
}  # fmt: skip
SENTENCES_HELD_OUT = {
    "+": ["what do {a} and {b} make together", "if you put {a} and {b} together, what comes out", "I own {a} books and buy {b} more, how many books are mine"],
    "-": ["what remains of {a} after taking away {b}", "I had {a} sweets and ate {b}, how many are left over", "how much is {a} if you subtract {b}"],
    "*": ["how many are {a} times {b}", "what results from multiplying {a} with {b}", "{a} rows of {b} chairs, how many chairs"],
    "/": ["what do I get when I divide {a} by {b}", "{a} split into {b} parts, how big is each"],
}  # fmt: skip
MORE = {
    "+": ["plus {b}", "and plus {b}", "add {b}", "add {b} to that", "now add {b}", "and {b} more", "plus {b} more", "what if I add {b}", "put {b} on it", "then {b} more", "and another {b}", "increase it by {b}", "and then plus {b}"],
    "-": ["minus {b}", "and minus {b}", "subtract {b}", "now subtract {b}", "take away {b}", "subtract {b} from that", "and {b} less", "without {b}", "then remove {b}", "decrease it by {b}", "take {b} away", "and then minus {b}"],
}  # fmt: skip
MORE_HELD_OUT = {"+": ["now put {b} on top", "then add another {b}"], "-": ["then take {b} off", "and now without {b}"]}
HARD = ["{ask} {big}+{big2}", "{ask} {big} plus {b}", "{ask} {big} times {big2}", "{ask} {big} * {b}", "{ask} {big} - {b}", "{ask} the square root of {big}", "{ask} {a} to the power of {b}", "{ask} {a} percent of {big}", "{ask} {c} times {d}", "{ask} {c} x {d}", "{ask} {c} * {d}", "{ask} {big} divided by {b}", "{ask} {a}^{b}", "{ask} {a} squared", "{ask} the factorial of {a}", "{ask} {a}.{b} + {b}.{a}", "{ask} {b} divided by 0", "multiply {c} by {d}", "add {big} and {big2}"]  # fmt: skip


def is_held_out(a: int, op: str, b: int) -> bool:
    return (a * 131 + b * 71 + ord(op) * 17) % 11 == 3


def result(a: int, op: str, b: int) -> int:
    return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a // b


def operands(rng: Random, op: str, held_out: bool) -> tuple[int, int]:
    """Two numbers for a sum of the wanted split."""
    while True:
        top = rng.choice((12, 20, 50, 99))
        a, b = rng.randint(0, top), rng.randint(0, top)
        if op == "-" and a < b and rng.random() < 0.95:
            a, b = b, a
        if op in "*/":
            a, b = rng.randint(0, 12), rng.randint(0, 12)
        if op == "/":
            b = max(b, 1)
            a = a * b
        if is_held_out(a, op, b) == held_out:
            return a, b


def written(number: int, rng: Random, words: bool) -> str:
    return NUMBER_WORDS[number] if words and 0 <= number <= 20 else str(number)


def _ask(rng: Random, pattern: str, core: str) -> str:
    opener = expand(pattern, rng)
    return opener.replace("*", core) if "*" in opener else f"{opener} {core}".strip()


def sum_turn(rng: Random, held_out: bool = False, state: dict | None = None) -> Turn:
    """A sum; with a `last` result in `state` at times one that goes on from it."""
    if rng.random() < (0.05 if held_out else 0.1):
        return hard_turn(rng)
    last = None if state is None else state.get("last")
    more = last is not None and 0 <= last < 100 and rng.random() < 0.4
    op = rng.choice("+++---**/")
    a, b = operands(rng, op, held_out)
    if more:
        choices = [(sign, n) for sign in "+-" for n in range(100) if is_held_out(last, sign, n) == held_out]
        op, b = rng.choice([(sign, n) for sign, n in choices if sign == "+" or n <= last])
        a = last
    if more:
        text = rng.choice((MORE_HELD_OUT if held_out else MORE)[op])
    elif rng.random() < 0.35:
        text = rng.choice((SENTENCES_HELD_OUT if held_out else SENTENCES)[op])
    else:
        text = _ask(rng, ASK_HELD_OUT if held_out and rng.random() < 0.5 else ASK, rng.choice(WORDINGS[op]))
    words = rng.random() < 0.15
    if not held_out:
        text = noise(text, rng)
    elif text[-1] not in "=.":
        text += "?"
    text = text.replace("{a}", written(a, rng, words)).replace("{b}", written(b, rng, words))
    value = result(a, op, b)
    if state is not None:
        state["last"] = value
    return Turn(text, f"{a} {SIGN[op]} {b} = {value}.", [rf"= {value}(?!\d)"], "sum")


def hard_turn(rng: Random) -> Turn:
    """A sum beyond the model, which it shall say."""
    text = rng.choice(HARD)
    for name, value in {
        "big": rng.choice((rng.randint(200, 999), rng.randint(1000, 99999))),
        "big2": rng.choice((rng.randint(200, 999), rng.randint(1000, 99999))),
        "a": rng.randint(2, 99),
        "b": rng.randint(2, 99),
        "c": rng.randint(14, 99),
        "d": rng.randint(14, 99),
    }.items():
        text = text.replace("{" + name + "}", str(value))
    text = _ask(rng, ASK, text.replace("{ask} ", "")) if "{ask}" in text else text
    return Turn(noise(text, rng), TOO_HARD, ["too hard"], "hard sum")
