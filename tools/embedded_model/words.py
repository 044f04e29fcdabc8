"""Word lists, each with a part that training never sees, and made-up words."""

from random import Random

NAMES = """Anna Ben Clara David Emma Felix Greta Henry Ida Jack Kate Liam Mia Noah Olivia Paul Rosa Sam Tom Vera William Zoe
Alice Bob Carol Daniel Eva Frank Grace Hannah Ivan Julia Kevin Laura Mark Nina Oscar Peter Robert Sarah Tim Victor Walter
Maria Ali Fatima Omar Yusuf Aisha Chen Wei Ling Mei Hiro Yuki Kenji Sakura Raj Priya Arjun Lakshmi Pedro Carlos Lucia Sofia
Pablo Giulia Marco Luca Pierre Marie Jean Louis Chloe Hans Klaus Ingrid Lars Sven Astrid Olga Igor Natasha Dmitri Boris Anya
John Jane Mary James Michael Linda Susan Karen George Edward Charles Thomas Joseph Anthony Steven Andrew Brian Ronald Jason
Lisa Nancy Betty Helen Sandra Donna Ruth Sharon Michelle Emily Kim Amy Angela Brenda Nicole Samantha Christine Rachel Martin
Max Moritz Leo Lena Jonas Lukas Finn Paula Mila Elias Theo Nora Ella Oliver Harry Charlie Freya Isla Ava Lily Ethan Mason""".split()
NAMES_HELD_OUT = """Beatrice Quentin Tobias Ursula Wilhelm Xenia Yannick Zelda Amadou Bjorn Cedric Delphine Esther Fiona Gustav
Hilda Ibrahim Jasmin Konrad Leonard Matilda Norbert Ophelia Percival Ramona Sebastian Tamara Umberto Valentin Winifred Adele
Barnaby Cornelia Dorothea Edgar Florence Gideon Harriet Isabella Jeremy Kirsten Lorenzo Miranda Nathaniel Octavia Patrick
Rupert Stella Trevor Vivian Wanda Yvonne Agnes Bruno Camille Dennis""".split()

CITIES = """Paris London Berlin Madrid Rome Vienna Prague Warsaw Oslo Stockholm Helsinki Dublin Lisbon Athens Budapest Zurich
Hamburg Munich Cologne Milan Naples Barcelona Moscow Kyiv Istanbul Cairo Lagos Nairobi Delhi Mumbai Tokyo Osaka Seoul Beijing
Shanghai Sydney Melbourne Toronto Boston Chicago Dallas Denver Seattle Miami Lima Bogota Santiago Leeds Glasgow Leipzig""".split()
CITIES_HELD_OUT = "Amsterdam Brussels Geneva Dresden Porto Krakow Sofia Austin Montreal Manchester Hanoi Bangkok".split()
COLOURS = "red blue green yellow black white orange purple pink brown grey violet gold silver cyan magenta beige".split()
COLOURS_HELD_OUT = "turquoise crimson indigo lavender olive maroon".split()
FOODS = """pizza pasta bread cheese soup rice salad sushi curry chocolate cake apples bananas noodles potatoes pancakes tacos
sandwiches steak fish eggs beans""".split()
FOODS_HELD_OUT = "lasagne dumplings risotto goulash waffles strawberries".split()
PETS = "dog cat horse rabbit parrot hamster fish turtle".split()
JOBS = """teacher doctor nurse baker driver farmer painter singer writer lawyer cook student programmer gardener pilot
carpenter plumber waiter librarian""".split()
JOBS_HELD_OUT = "dentist photographer mechanic journalist tailor surgeon".split()
HOBBIES = """swimming running reading painting chess football tennis cooking dancing singing hiking cycling gardening fishing
knitting skiing climbing photography""".split()
HOBBIES_HELD_OUT = "sailing archery pottery juggling rowing badminton".split()

COUNTRIES = """France Spain Italy Germany Poland Norway Sweden Greece Portugal Egypt India China Japan Brazil Canada Mexico
Peru Chile Kenya Russia Turkey Iran Australia Austria Hungary Ireland Denmark Finland Cuba Korea""".split()
COUNTRIES_HELD_OUT = "Argentina Vietnam Morocco Belgium Iceland Nigeria Thailand Estonia".split()
PEOPLE = """Einstein|Newton|Shakespeare|Mozart|Beethoven|Napoleon|Caesar|Cleopatra|Picasso|Gandhi|Obama|Bach|Darwin|Goethe|Plato|
Columbus|Elvis|Michael Jackson|Marie Curie|Isaac Newton|Leonardo da Vinci|Queen Elizabeth|Nelson Mandela|Taylor Swift|the pope|
the president|the king of England|the chancellor|Harry Potter|Batman""".replace("\n", "").split("|")
PEOPLE_HELD_OUT = ["Galileo", "Charlie Chaplin", "Nikola Tesla", "Socrates", "Frida Kahlo", "the emperor of Japan"]
THINGS = """the moon|the sun|Mars|Mount Everest|the Eiffel Tower|the ocean|a whale|an elephant|a spider|a volcano|gold|iron|water|
gravity|light|a black hole|an atom|electricity|DNA|photosynthesis|democracy|inflation|the stock market|a bank|a tax|love|
happiness|the brain|the heart|blood|a virus|a vaccine|cancer|sleep|coffee|tea|bread|beer|wine|a bicycle|a car|an airplane|
a rocket|a computer|the Internet|Bitcoin|blockchain|a database|SQL|JavaScript|HTML|Linux kernel history|Java|Ruby|compiler theory|
recursion|quicksort|a prime number|pi|algebra|calculus|a triangle|a matrix|the French revolution|World War II|the Roman Empire|
the Middle Ages|the Bible|Hamlet|the Mona Lisa|jazz|opera|the piano|the guitar|football|the Olympic Games|chess rules|
the weather system|climate change|a hurricane|an earthquake|the Amazon|the Nile|a dinosaur|evolution|a cat|a dog|a horse|a tree|
a rose|an apple|chocolate|sugar|salt|pizza|a dream|time|money|philosophy|religion|art|music theory|poetry|grammar|a verb|
machine learning|deep learning|a neural network|a transformer|attention in transformers|reinforcement learning|gradient descent|
my car|my house|my cat|my homework|my job|my boss|the universe|space|a star|a galaxy|the earth|a mountain|a river|the desert|
snow|rain|fire|glass|plastic|oil|steel|a battery|a solar panel|nuclear power""".replace("\n", "").split("|")
THINGS_HELD_OUT = """Jupiter|a penguin|the Great Wall of China|a thunderstorm|copper|quantum mechanics|a symphony|the Titanic|
a mortgage|an octopus|the cold war|a diamond|the Sahara|inheritance law|a telescope|cricket|the violin|a glacier""".replace("\n", "").split("|")  # fmt: skip

SYLLABLES = """ba be bi bo bu ka ke ki ko ku da de di do du fa fe fi fo ga ge go gu ha he hi ho ja je jo ju la le li lo lu ma me mi
mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we wi ya yo za ze zi zo sha chi
tha bra dri fre gla kra pla sto tri wil ster mond bert rick lyn ton wen dor lan mar nel vin zan bel quin xa ys ert ald ina
ette illa ian ard ena ora ius""".split()


def made_up(rng: Random) -> str:
    """A word that does not exist, in lower case: the model has to copy it or to know that it knows nothing about it."""
    word = "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3, 3, 4))))
    return word + rng.choice(("", "", "n", "s", "r", "l", "th", "k"))


def made_up_name(rng: Random) -> str:
    name = made_up(rng).capitalize()
    return name if name not in NAMES_HELD_OUT and name not in CITIES_HELD_OUT else "Bobo"


ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kn l m n p ph pl pr qu r s sc sh sk sl sm sn sp st str t th tr tw v w wh y z".split()
NUCLEI = "a e i o u a e i o u a e i o u ai au ea ee ei ie io oa oo ou ue y".split()
CODAS = ["", "", ""] + "b ck d f g l ll m n nd ng nt p r rd rk rm rn rt s sh ss st t th tt x".split()
ENDINGS = ["", "", "", ""] + "er or ist ian ing in a o y ery ia et el us ine e on ies s es ment age ique ard".split()
HELD_OUT = {
    word.lower()
    for part in (NAMES_HELD_OUT, CITIES_HELD_OUT, COLOURS_HELD_OUT, FOODS_HELD_OUT, JOBS_HELD_OUT, HOBBIES_HELD_OUT, COUNTRIES_HELD_OUT)
    for word in part
}


def invented(rng: Random) -> str:
    """A word that does not exist, as `made_up`, but of any letters: so that a name of any spelling can be copied."""
    while True:
        if rng.random() < 0.4:
            word = made_up(rng)
        else:
            count = rng.choice((1, 1, 2, 2))
            word = "".join(rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(count)) + rng.choice(ENDINGS)
            word = word[1:] if rng.random() < 0.15 and len(word) > 4 else word
        if len(word) > 1 and word not in HELD_OUT:
            return word
