"""What the user says about themselves, to be remembered across turns."""

from dataclasses import dataclass
from random import Random

import words
from grammar import expand, noise
from phrasing import COMMON, clutter
from turn import Turn


@dataclass(frozen=True)
class Attribute:
    """A thing to remember. `{v}` stands for the value; `known` and `unknown` answer the question for it."""

    name: str
    values: list[str]
    values_held_out: list[str]
    tell: list[str]
    tell_held_out: list[str]
    reply: str
    ask: list[str]
    ask_held_out: list[str]
    known: str
    unknown: str
    capital: bool = False


ATTRIBUTES = [
    Attribute(
        "name", words.NAMES, words.NAMES_HELD_OUT,
        ["my name is {v}", "my name's {v}", "I am {v}", "I'm {v}", "(call|please call) me {v}", "you can call me {v}", "this is {v}", "(hi|hello|hey)[,] I'm {v}", "(hi|hello|hey)[,] I am {v}", "(hi|hello|hey)[,] my name is {v}", "I am called {v}", "they call me {v}", "everyone knows me as {v}", "my mother calls me {v}", "let me introduce myself: {v}", "may I introduce myself, I'm {v}", "I was named {v}", "it is me, {v}", "I was given the name {v}", "{v} is what they call me", "(hi|hello|hey)[ there], {v} is me", "you are (talking|speaking) to {v}", "{v} is my name", "I'd prefer to be called {v}", "(hi|hello), it's {v}", "I want you to know that I am {v}", "people call me {v}", "the name is {v}", "my first name is {v}", "name: {v}", "[actually|no|sorry][,] my name is {v}", "I'm {v}, nice to meet you", "my name is {v}, what is yours", "my name is {v}. who are you", "I am {v} by the way", "it's {v}", "(hi|hello)[,] {v} here", "good morning, I am {v}", "my friends call me {v}", "just call me {v}", "I changed my name to {v}", "let me introduce myself: I am {v}", "remember that my name is {v}", "remember my name: {v}", "do you like my name? it is {v}", "from now on I am {v}", "I go by {v}", "you may call me {v}", "please remember that I am called {v}", "{v} is my name", "{v} is what people call me", "(you are|you're) (talking|chatting|speaking) (to|with) {v}", "it's me, {v}", "it is me, {v}", "{v} speaking", "my mother (named|called) me {v}", "my nickname is {v}", "{v} is my first name", "I was named {v}", "I was given the name {v}", "may I introduce myself: {v}", "(everyone|everybody|somebody) here calls me {v}", "(I want|I would like|please let) you (to know|to remember) that I am {v}", "I prefer to be called {v}", "say hello to {v}, that is me", "hello, my name would be {v}", "in case you wonder, I am {v}", "(hi|hello|hey)[,] {v} is my name", "my full name is {v}", "I am known as {v}", "you can say {v} to me", "you should call me {v}", "to you I am {v}", "at home they call me {v}"],
        ["everybody calls me {v}", "allow me to introduce myself, my name is {v}", "I'd like you to call me {v}", "my parents named me {v}", "hey there, {v} is my name", "hello, it is me, {v}", "for your information, I am {v}"],
        "Nice to meet you, {v}!",
        ["what is my name", "what's my name", "whats my name", "do you (know|remember|still know|recall) my name", "who am I", "can you (tell me|remember|say) my name", "how am I called", "what did I say my name was", "how did I introduce myself", "under what name do you know me", "what did I tell you to call me", "who is (speaking|writing) to you", "with whom are you talking", "(can|could) you repeat what I'm called", "what do people call me", "which name (is mine|have I got)", "how do they call me", "tell me my name", "say my name", "my name", "what was my name[ again|]", "what is my name again", "did I tell you my name", "do you (know|remember) who I am", "have you forgotten my name", "and my name", "what do you call me", "remember my name", "what name did I (give|tell) you", "what is the name I told you", "can you remember what my name is", "I forgot my name", "which name did I (tell|give) you", "what name do I have", "how did I introduce myself", "(could|can|would) you (repeat|tell me|say) my name [again|please]", "who is (talking|writing|speaking) to you", "do you still (remember|know) (who I am|what I am called|my name)", "what am I called", "have I told you my name", "with whom are you (talking|chatting)", "which is my name", "please say my name", "I told you my name, what is it"],
        ["which name do I have?", "could you repeat my name?", "do you happen to remember how I am called?", "by what name did I introduce myself?", "so, who is talking to you?"],
        "Your name is {v}.", "You have not told me your name yet.", True,
    ),
    Attribute(
        "city", words.CITIES, words.CITIES_HELD_OUT,
        ["I live in {v}", "I'm living in {v}", "{v} is where my home is", "my (apartment|house|place) is in {v}", "I have been in {v} for (years|a long time)", "I stay in {v}", "the town I live in is called {v}", "I reside in {v}", "{v} is the place I come from", "we have a house in {v}", "city: {v}", "my address is in {v}", "I settled in {v}", "{v} is my town", "I've lived in {v} for years", "I found a home in {v}", "I am from {v}", "I'm from {v}", "I come from {v}", "my (city|town|home town) is {v}", "my home is {v}", "I moved to {v}", "I am in {v} [now|at the moment]", "I live in {v} now", "I was born in {v}", "remember that I live in {v}", "we live in {v}", "I have a flat in {v}", "home for me is {v}", "{v} is my home", "{v} is the city I live in", "the (place|town) I live in is {v}", "I have lived in {v} (all my life|since last year|for ten years)", "you find me in {v}", "{v} is my (city|town|home town)", "my flat is in {v}", "my family lives in {v}, and so do I", "I am a citizen of {v}", "I settled in {v}", "I'm at home in {v}", "I reside in {v}", "my (address|apartment) is in {v}"],
        ["the city where I live is {v}", "{v} is where I live", "my house is in {v}", "I have been living in {v} for years"],
        "I will remember that you live in {v}.",
        ["where do I live", "which city (do I live in|am I from|is mine)", "what was my (city|town|home)", "which is the place I live in", "where is my (flat|house|apartment|place)", "where did I tell you I live", "can you say where my home is", "do you recall (where I live|my town|my city)", "in which place do I live", "which city did I name", "where am I from", "what is my (city|town|home town)", "do you (know|remember) where I live", "in which city do I live", "where is my home", "what city did I (mention|tell you)", "where did I say I live", "do you know my city", "tell me where I live", "where do I come from", "what place do I live in", "(could|can) you (recall|tell me|repeat) (my city|my town|where I live)", "which (place|town) is my home", "in what town do I live", "do you still know where I live"],
        ["what was the place I live in?", "can you recall my home town?", "do you still know where my home is?"],
        "You live in {v}.", "You have not told me where you live.", True,
    ),
    Attribute(
        "colour", words.COLOURS, words.COLOURS_HELD_OUT,
        ["my (favourite|favorite) (colour|color) is {v}", "I like the (colour|color) {v}[ best| most|]", "no other (colour|color) is as nice as {v}", "I like no (colour|color) more than {v}", "I find {v} the most beautiful (colour|color)", "there is no better (colour|color) than {v}", "when it comes to (colours|colors), I like {v}", "{v} is the nicest (colour|color)", "speaking of (colours|colors), I love {v}", "I am fond of the (colour|color) {v}", "(colour|color): {v}", "among colours {v} pleases me [most]", "the (colour|color) I'd choose is {v}", "{v} is my (favourite|favorite) (colour|color)", "the (colour|color) I like [best|most] is {v}", "my (colour|color) is {v}", "I love {v}, it is my favourite colour", "remember that my favourite colour is {v}", "of all colours I like {v} [best]", "the best colour is {v}", "{v} is the colour I like [best|most]", "nothing is nicer than {v}, it is my favourite colour", "my preferred (colour|color) is {v}", "the (colour|color) I love is {v}", "I prefer the colour {v}", "if I have to choose a colour, I take {v}", "I adore {v}, what a colour", "for me the nicest colour is {v}", "{v} is the nicest (colour|color) [of all]", "when it comes to colours, I like {v}"],
        ["no colour is nicer to me than {v}", "the color which I prefer is {v}", "as for colours, {v} is my favourite"],
        "I will remember that your favourite colour is {v}.",
        ["what is my (favourite|favorite) (colour|color)", "what's my (favourite|favorite) (colour|color)", "which (colour|color) do I like [best|most]", "which (colour|color) am I fond of", "what (colour|color) pleases me", "which (colour|color) do I prefer", "what (colour|color) did I tell you", "do you recall (my favourite|the) colour [I like]", "what's the (colour|color) I like", "(name|say) the (colour|color) I like", "do you (know|remember) my (favourite|favorite) (colour|color)", "what (colour|color) do I (like|love)", "which is my favourite colour", "tell me my favourite colour", "what was my favourite colour", "my favourite colour", "and my favourite colour", "(could|can) you (name|tell me|recall) my favourite colour", "what is the colour I (like|love|prefer)", "which colour did I (mention|say)", "the colour I like best is which"],
        ["can you name the colour I like best?", "which color did I say I prefer?", "what's the colour I'm fond of?"],
        "Your favourite colour is {v}.", "You have not told me your favourite colour.",
    ),
    Attribute(
        "food", words.FOODS, words.FOODS_HELD_OUT,
        ["my (favourite|favorite) (food|dish|meal) is {v}", "I like to eat {v}", "I love to eat {v}", "I like no food more than {v}", "no dish tastes as good as {v}", "what I love most to eat is {v}", "I'd eat {v} any day", "the dish I love is {v}", "food: {v}", "I enjoy eating {v}", "the (dish|food) I like is {v}", "there is nothing better to eat than {v}", "what I eat with pleasure is {v}", "give me {v} and I'm happy, it is my favourite food", "the food I prefer is {v}", "{v} is my (favourite|favorite) (food|dish)", "the food I like [best|most] is {v}", "I like eating {v}", "I eat {v} every day", "remember that my favourite food is {v}", "my favourite thing to eat is {v}", "{v} is the food I like [best|most]", "nothing tastes better than {v}", "my preferred food is {v}", "the meal I love is {v}", "I prefer to eat {v}", "for lunch I like {v} best", "{v} is what I like to eat", "I could eat {v} all day", "when it comes to food, I like {v}", "I am fond of eating {v}", "the dish I like is {v}"],
        ["there is no better food than {v}", "the dish I prefer is {v}", "what I eat most gladly is {v}"],
        "I will remember that your favourite food is {v}.",
        ["what is my (favourite|favorite) (food|dish|meal)", "what's my favourite food", "what do I like to eat", "do you (know|remember) my (favourite|favorite) food", "which food do I prefer", "what dish do I like", "what is it that I like to eat", "what do I prefer to eat", "what meal am I fond of", "what food did I tell you", "do you recall (my favourite food|what I like to eat)", "(name|say) the (food|dish) I like", "what did I say I like to eat", "which food do I like [best|most]", "what food do I (like|love)", "tell me my favourite food", "(could|can) you (name|tell me|recall) my favourite food", "what do I love to eat", "what is the food I (like|love|prefer)", "which meal did I (mention|say)", "what was my favourite food", "my favourite food"],
        ["can you name the food I like best?", "what did I say I love to eat?", "which dish do I prefer?"],
        "Your favourite food is {v}.", "You have not told me your favourite food.",
    ),
    Attribute(
        "job", words.JOBS, words.JOBS_HELD_OUT,
        ["I work as a {v}", "I am a {v}", "I'm a {v}", "I earn my living as a {v}", "my living comes from work as a {v}", "I get paid as a {v}", "job title: {v}", "profession: {v}", "work: {v}", "by profession: {v}", "as for my job, I'm a {v}", "I make money as a {v}", "I've been a {v} since last year", "my trade is {v}", "I have a job as a {v}", "occupation: {v}", "my work: {v}", "my job is {v}", "I am a {v} [by profession]", "my profession is {v}", "I earn my money as a {v}", "I am working as a {v}", "remember that I am a {v}", "at work I am a {v}", "I became a {v}", "I am employed as a {v}", "{v} is my job", "my work is being a {v}", "I have worked as a {v} for years", "my occupation is {v}", "I was trained as a {v}", "by trade I am a {v}", "job: {v}", "I am a {v} in a small company", "I'm a professional {v}"],
        ["I make my living as a {v}", "for a living I work as a {v}", "my occupation: {v}"],
        "I will remember that you work as a {v}.",
        ["what is my (job|profession|work|occupation)", "what's my job", "what do I do for a living", "do you (know|remember) my (job|profession)", "how do I make [my] money", "what brings in my money", "with what (work|job) do I earn money", "what pays my bills", "(which|what) (trade|line of work|occupation) (have I|do I have|is mine)", "what kind of work do I do", "what was it that I do for work", "how do I earn (money|a living)", "do you recall (my job|what I work as|my profession)", "which (job|work|profession) is mine", "what do I work as", "what am I by profession", "tell me my job", "what was my job", "where do I work", "how do I earn my living", "(could|can) you (tell me|recall) my job", "what profession do I have", "which job did I mention", "my job"],
        ["how do I earn my money?", "which profession do I have?", "do you recall what my job is?"],
        "You work as a {v}.", "You have not told me your job.",
    ),
    Attribute(
        "hobby", words.HOBBIES, words.HOBBIES_HELD_OUT,
        ["my hobby is {v}", "my (favourite|favorite) hobby is {v}", "for leisure I do {v}", "I pass my time with {v}", "my passion is {v}", "when I'm free I do {v}", "after a long day I like {v}", "I have a hobby: {v}", "the hobby I have is {v}", "hobby: {v}", "for fun I do {v}", "I enjoy {v} as a hobby", "my leisure activity is {v}", "my hobbies are {v}", "in my free time I like {v}", "I enjoy {v} in my free time", "{v} is my hobby", "I like {v} as a hobby", "what I like to do is {v}", "remember that my hobby is {v}", "I spend my free time with {v}", "{v} is what I do in my free time", "I love {v}, it is my hobby", "my spare time goes into {v}", "on weekends I enjoy {v}", "I have one hobby: {v}", "my favourite activity is {v}", "I do {v} as a hobby", "in the evening I like {v}", "I am keen on {v}", "as a hobby I do {v}"],
        ["my pastime is {v}", "after work I enjoy {v}", "I have a hobby, it is {v}"],
        "I will remember that your hobby is {v}.",
        ["what is my [favourite] hobby", "what's my hobby", "what do I like to do", "what do I do in my free time", "what do I do for (leisure|fun)", "what is my passion", "how do I (spend|pass) my (free time|time|evenings)", "do you recall my hobby", "what hobby did I tell you", "which hobby is mine", "do you (know|remember) my hobby", "which hobby do I have", "tell me my hobby", "what was my hobby", "what are my hobbies", "(could|can) you (tell me|recall) my hobby", "what do I enjoy in my free time", "which hobby did I mention", "my hobby"],
        ["how do I spend my free time?", "which pastime of mine did I mention?", "do you recall my hobby?"],
        "Your hobby is {v}.", "You have not told me your hobby.",
    ),
    Attribute(
        "age", [str(n) for n in range(6, 90) if n % 7], [str(n) for n in range(7, 90, 7)],
        ["I am {v} years old", "I'm {v} years old", "I'm {v}", "my age is {v}", "I am {v}", "I turned {v} [yesterday|last week|this year]", "I have just become {v}", "remember that I am {v} years old", "I will be {v} soon", "{v} years is my age", "I am a {v} year old person", "I have reached the age of {v}", "I am aged {v}", "since my birthday I am {v} years old", "age: {v}", "I have been alive for {v} years"],
        ["{v} is my age", "as of today I am {v} years old", "I have lived for {v} years"],
        "I will remember that you are {v} years old.",
        ["how old am I", "what is my age", "what's my age", "do you (know|remember) (my age|how old I am)", "tell me my age", "what age am I", "what was my age", "my age", "how old did I say I am", "(could|can) you (tell me|recall|repeat) my age", "what age did I (give|tell|mention)", "how many years am I old"],
        ["how many years old am I?", "can you recall my age?", "which age did I give you?"],
        "You are {v} years old.", "You have not told me your age.",
    ),
    Attribute(
        "pet", words.NAMES, words.NAMES_HELD_OUT,
        ["my {p} is called {v}", "my {p}'s name is {v}", "we named our {p} {v}", "our {p}'s name is {v}", "this is my {p} {v}", "I live with my {p} {v}", "I gave my {p} the name {v}", "my {p} answers to {v}", "there is {v}, my {p}", "with me lives a {p} called {v}", "my pet is called {v}", "my pet is a {p} called {v}", "we call the {p} {v}", "I have a {p} whose name is {v}", "here with me is my {p} {v}", "our {p} {v} lives with us", "I have a {p} called {v}", "I have a {p} named {v}", "my {p} is named {v}", "the name of my {p} is {v}", "I have a {p}, its name is {v}", "we have a {p} called {v}", "remember that my {p} is called {v}", "{v} is the name of my {p}", "{v} is my {p}", "I own a {p} called {v}", "there is a {p} in my house called {v}", "my {p} {v} is very nice", "our {p} is called {v}", "I have a pet, a {p} named {v}", "my {p} has the name {v}", "my {p} goes by the name {v}", "at home I have a {p} called {v}"],
        ["I own a {p} whose name is {v}", "at home there is my {p} {v}", "we call our {p} {v}"],
        "I will remember that your pet is called {v}.",
        ["what is my (pet|{p}) called", "what is the name of my (pet|{p})", "what is my {p}'s name", "what did I name my {p}", "what name did I give my (pet|{p})", "do you recall my (pet|{p})'s name", "can you tell me how my (pet|{p}) is named", "which name does my (pet|{p}) have", "what do I call my (pet|{p})", "how is my (pet|{p}) named", "do you (know|remember) the name of my (pet|{p})", "how is my (pet|{p}) called", "who is {v}", "what's my (pet|{p})'s name", "tell me the name of my (pet|{p})", "my {p}'s name"],
        ["which name has my {p}?", "can you recall how my {p} is called?"],
        "Your pet is called {v}.", "You have not told me about a pet.", True,
    ),
]  # fmt: skip

BOTH = ["I'm {name} from {city}", "I am {name} and I live in {city}", "my name is {name} and I live in {city}", "(hi|hello)[,] I'm {name}, I live in {city}", "my name is {name}, I am from {city}", "I'm {name} and I come from {city}", "{name} from {city} here"]  # fmt: skip
BOTH_HELD_OUT = ["this is {name}, writing from {city}", "call me {name}, my home is {city}"]
BOTH_REPLY = "Nice to meet you, {name}! I will remember that you live in {city}."
ALL = ["what do you know about me", "what do you remember about me", "tell me what you know about me", "what have I told you [so far]", "what did I tell you [about me]", "what do you know of me", "say what you remember", "what do you remember", "list what you know about me", "do you know anything about me", "summarise what you know about me"]  # fmt: skip
ALL_HELD_OUT = ["which facts about me have you kept in mind?", "recall everything I told you about myself"]
NOTHING = "Nothing yet. Tell me your name, for example."


def value_of(attribute: Attribute, rng: Random, held_out: bool) -> str:
    """A value of the attribute; in training often a made-up or unfitting word, so that the model learns to copy."""
    if held_out:
        return rng.choice(attribute.values_held_out)
    draw = rng.random()
    if attribute.name == "age" or draw < 0.35:
        value = rng.choice(attribute.values)
    elif draw < 0.45 and not attribute.capital:
        value = rng.choice(COMMON)
    else:
        value = words.invented(rng)
        value = value.capitalize() if attribute.capital else value
    if attribute.capital:
        draw = rng.random()
        value = value.lower() if draw < 0.15 else value.upper() if draw < 0.17 else value
    return value


def _user(patterns: list[str], rng: Random, held_out: bool, values: dict[str, str]) -> str:
    text = expand(rng.choice(patterns), rng)
    text = text if held_out else noise(text, rng)
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text[:1].upper() + text[1:] if held_out else text


def tell_turn(rng: Random, state: dict, held_out: bool = False, attribute: Attribute | None = None) -> Turn:
    """The user says something about themselves; `state["known"]` keeps it."""
    known: dict[str, str] = state["known"]
    if attribute is None:
        if rng.random() < 0.1:
            values = {a.name: value_of(a, rng, held_out) for a in ATTRIBUTES[:2]}
            known.update(values)
            text = _user(BOTH_HELD_OUT if held_out else BOTH, rng, held_out, values)
            accept = [r"\b" + value + r"\b" for value in values.values()]
            return Turn(text, BOTH_REPLY.format(**values), accept, "name")
        attribute = ATTRIBUTES[0] if rng.random() < 0.45 else rng.choice(ATTRIBUTES[1:])
    value = value_of(attribute, rng, held_out)
    state["pet"] = rng.choice(words.PETS) if attribute.name == "pet" else state.get("pet", "dog")
    known[attribute.name] = value
    text = _user(attribute.tell_held_out if held_out else attribute.tell, rng, held_out, {"v": value, "p": state["pet"]})
    category = "name" if attribute.name == "name" else "memory"
    return Turn(text, attribute.reply.format(v=value), [r"\b" + value + r"\b"], category)


def ask_turn(rng: Random, state: dict, held_out: bool = False, attribute: Attribute | None = None) -> Turn:
    """A question for something the user said, or did not say."""
    known: dict[str, str] = state["known"]
    if attribute is None and rng.random() < 0.08:
        known_parts = [a.known.format(v=known[a.name]) for a in ATTRIBUTES if a.name in known]
        text = _user(ALL_HELD_OUT if held_out else ALL, rng, held_out, {})
        accept = [r"\b" + value + r"\b" for value in known.values()]
        return Turn(text, " ".join(known_parts) or NOTHING, accept or ["nothing"], "memory")
    if attribute is None:
        told = [a for a in ATTRIBUTES if a.name in known]
        attribute = rng.choice(told) if told and rng.random() < 0.8 else rng.choice(ATTRIBUTES)
        attribute = ATTRIBUTES[0] if rng.random() < 0.3 else attribute
    value = known.get(attribute.name)
    pet = state.get("pet", "dog")
    asks = [a for a in (attribute.ask_held_out if held_out else attribute.ask) if "{v}" not in a or value]
    asks = asks if held_out else [clutter(expand(rng.choice(asks), rng), rng)]
    text = _user(asks, rng, held_out, {"v": value or "", "p": pet})
    category = "name" if attribute.name == "name" else "memory"
    if value is None:
        return Turn(text, attribute.unknown, ["not told"], category)
    return Turn(text, attribute.known.format(v=value), [r"\b" + value + r"\b"], category)
