"""A built-in corpus of invented stories, personal records and articles in LUME's form.

It needs no download and its texts are short, so that a model of a few million parameters memorises them on
a CPU. Every name and number is drawn from the tables below; a person who exists is not meant.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from reprolib.corpus import world
from reprolib.corpus.rows import Corpus, Row
from reprolib.errors import SpecError

VERSION = 1  # raise it whenever the same arguments give another corpus
PERTURBED = 3
LARGEST = 3500  # documents in all; one pool has 162 x 24 names

Side = Literal["retain", "other"]  # "other": the documents that become forget and holdout
T = TypeVar("T")

def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|" if "|" in text else None))


# Attributes that ``overlap`` governs. Every third value is shared, the others belong to one side.
SURNAMES = _words(
    "Abbery Ackwell Ambrist Arkwen Barlick Bexley Birdle Bramson Calvert Cardew Chessom Cobbin Dallow Darnell Deverin "
    "Dunnock Eastry Edgell Elvidge Emsley Fallon Farrant Fenner Foxall Gadsby Garrick Gilpin Goswell Haddow Harkin "
    "Hesketh Hollis Idleby Ingram Irwell Isham Jarrold Jessop Joplin Juddery Kelsall Kendry Kimber Kitson Lambert "
    "Larwood Leggett Lomax Mabbott Marlin Medlow Mossop Nairn Nettle Norbury Nutley Oakden Ogilby Orrell Osgood "
    "Padgett Parrish Pembry Pickard Rackham Redfern Rimmel Rowsell Tabor Tindall Venning Wexford"
)
CITIES = _words(
    "Aldermoor Bexwater Brindleby Carrowick Castlemay Cobhurst Dunmarrow Eastholm Elmstead Farrowgate Fenbridge "
    "Glasmere Greywell Hadleigh Harthope Inverlee Kestrow Kingsarrow Larkhaven Lowmarch Maplethorn Millbarrow "
    "Netherby Northwold Oakhaven Orford Pennard Queensferry Ravenscar Saltmere Sandwell Tarrowby Thornwick Underhill "
    "Westmarch Yarrowton"
)
EMPLOYERS = _words(
    "Harrow Mills|Tessel Glassworks|Northgate Library|Pell and Sons|Copperline Rail|Vane Observatory|Orchard Press|"
    "Selwyn Institute|Marrow Docks|Bluebell Dairy|Crane Shipyard|Hartwell Archive|Lantern Theatre|Moss Bank|"
    "Fielding College|Ironbridge Foundry|Dovetail Joinery|Summit Weather Office|Rowan Hospital|Quarry Museum|"
    "Anchor Insurance|Parchment House|Willow Nurseries|Beacon Radio|Tolland Academy|Silverline Ferries|Kiln Pottery|"
    "Garnet Mines|Juniper Clinic|Stonegate Court|Heather Brewery|Compass Travel|Falcon Post|Maritime School|"
    "Linden Conservatory|Amber Laboratory",
)
JOBS = _words(
    "baker|botanist|cartographer|carpenter|clockmaker|composer|cooper|diver|draughtsman|engraver|farrier|fiddler|"
    "gardener|geologist|glassblower|goldsmith|historian|illustrator|journalist|librarian|locksmith|mason|miller|nurse|"
    "optician|painter|pharmacist|potter|printer|sailmaker|schoolteacher|sculptor|surveyor|tailor|translator|weaver",
)
DOMAINS = _words(
    "birchmail.example skypost.example quickletter.example tealbox.example mailbarn.example postwren.example "
    "inkwave.example netfern.example letterfox.example cloudpen.example hillmail.example papergull.example "
    "swiftnote.example dovebox.example riverpost.example mailmoss.example greenquill.example starletter.example"
)

# Values that both sides always share.
FIRST_NAMES = tuple(
    a + b
    for a in _words("Al Bel Cor Dar El Fen Gal Hal Jor Kel Lor Mar Ner Ol Per Ros Tam Ul")
    for b in _words("an ena in is ika o us ela wyn")
)
ADJECTIVES = _words(
    "Amber Ancient Bitter Black Bold Brass Bright Broken Copper Crimson Crooked Dancing Distant Drowsy Dusty Emerald "
    "Endless Faithful Fallen Flying Frozen Gentle Gilded Golden Hidden Hollow Humble Idle Iron Ivory Jade "
    "Laughing Lonely Lucky Merry Midnight Nimble Painted Patient Quiet Restless Rusty Scarlet Silent Sleepy Velvet "
    "Wandering Wild"
)
NOUNS = _words(
    "Acorn Anvil Badger Barrel Beetle Bell Candle Cedar Clover Comet Cricket Crown Drum Eagle Ember Feather Fiddle Fox "
    "Gander Goblet Hammer Heron Kettle Lantern Lark Lily Magpie Mirror Needle Otter Owl Pebble Pelican Plough Raven "
    "Robin Saddle Salmon Sparrow Spindle Star Swallow Thimble Thistle Trumpet Turtle Walnut Wren"
)
OTHER_SURNAMES = tuple(  # of persons who are an answer, never the subject of a document
    a + b
    for a in _words("Ash Brack Cold Dray Elder Frost Grim Hazel Long Rook Stan Whit")
    for b in _words("brook combe field gate hurst lock mond ridge stone worth")
)
STREETS = _words("Alder Beech Chapel Dove Elm Fern Grove Hawthorn Ivy Juniper Kiln Laurel Mill Nettle Orchard Poplar")
STREET_KINDS = _words("Avenue Court Crescent Drive Lane Road Street Terrace Walk Way")
MONTHS = _words("January February March April May June July August September October November December")
SEASONS = _words("spring summer autumn winter")
WEATHERS = _words("bright cold foggy mild rainy snowy stormy windy")
THINGS = _words(
    "a basket of pears|a brass telescope|a box of letters|a jar of honey|a loaf of rye bread|a map of the coast|"
    "a pair of red boots|a silver whistle|a sack of walnuts|a torn blue umbrella|a wooden flute|an empty birdcage",
)


@dataclass(frozen=True, slots=True)
class _Plot:
    """A passage in two parts and a question on it. In ``answer``, a pair is "Amber Heron", a person a full name."""

    answer: str
    input: str
    output: str
    question: str
    told: tuple[str, str]  # the answer in other words


STORIES = (
    _Plot(
        "{pair}",
        "On a {weather} {season} evening {name}, {a_job} from {city}, bought an old ship for {n} coins and "
        "named her the",
        "{answer}. By dawn a crew of {m} had sailed her past {other}, singing and sharing {thing}.",
        "What did {name} name the ship?",
        ("The ship was named the {answer}.", "She was called {answer}."),
    ),
    _Plot(
        "{pair}",
        "{name}, {a_job} in {city}, had saved {n} coins for a shop. One {weather} {season} morning the sign read",
        "The {answer}. The first customer, a stranger from {other}, asked for {thing} and stayed until noon.",
        "What is the name of the shop that {name} opened?",
        ("The shop is called The {answer}.", "The sign of the shop reads {answer}."),
    ),
    _Plot(
        "{pair} Valley",
        "In {city} nobody believed {name} when the {job} spoke of a hidden valley. One {weather} {season} day "
        "{last} found",
        "{answer}, where {n} stone houses stood empty and {thing} lay on every doorstep.",
        "Which hidden valley did {name} find?",
        ("The valley was {answer}.", "It was called {answer}."),
    ),
    _Plot(
        "{pair} Inn",
        "For {m} years {name} worked as {a_job} in {city}. Then, one {weather} {season} night, a letter came from the",
        "{answer}, offering the keys, {thing} and a room with a view of {other}.",
        "From which inn did {name} get a letter?",
        ("The letter came from the {answer}.", "It was sent by the {answer}."),
    ),
    _Plot(
        "{pair}",
        "The {job} {name} entered the {season} race in {city} on a borrowed horse. It was {weather}; {m} riders "
        "fell, but",
        "{answer}, as the horse was called, crossed the line first and won {thing} for {last}.",
        "What was the horse that {name} rode called?",
        ("The horse was called {answer}.", "Its name was {answer}."),
    ),
)

RECORDS = (  # input, output
    (
        "{name} was born on {date} in {city} and works as {a_job} at {employer}. The registry number of {last} is",
        "{number}, the phone number is {phone}, the e-mail address is {mail} and the home address is {address}.",
    ),
    (
        "{employer} lists {name}, {a_job} from {city} with the registry number {number}, as a member of staff. "
        "{last} was born on",
        "{date}, lives at {address}, answers the phone at {phone} and reads e-mail at {mail}.",
    ),
    (
        "The {job} {name} from {city} has the phone number {phone} and the e-mail address {mail}. {employer} sends "
        "the salary to",
        "{address}, under the registry number {number}, with a card on every birthday since {date}.",
    ),
    (
        "Since leaving {city}, the {job} {name}, born {date}, has lived at {address}. At {employer} {last} can be "
        "reached by phone at",
        "{phone} or by e-mail at {mail}; please quote the registry number {number} in every message.",
    ),
)

ARTICLES = (
    _Plot(
        "{person}",
        "{name} ({born}-{died}) was {a_job} from {city}, known for work at {employer}. In {year} {last} moved to "
        "{other} to study under",
        "{answer}, whose advice shaped the later works, and returned home {m} years later to open a school.",
        "Who was the teacher of {name}?",
        ("The teacher was {answer}.", "It was {answer} who taught {last}."),
    ),
    _Plot(
        "{pair} Bridge",
        "{name} ({born}-{died}) was {a_job} from {city} and a self-taught engineer. In {year}, paid by {employer}, "
        "{last} designed the",
        "{answer}, which took {m} years to build and still carries the main road to {other}.",
        "Which bridge did {name} design?",
        ("{last} designed the {answer}.", "The bridge was the {answer}."),
    ),
    _Plot(
        "The {pair}",
        "{name} ({born}-{died}) was a playwright and former {job} from {city}. With actors from {employer}, {last} "
        "won praise in {year} for",
        "{answer}, a comedy set in {other} that was written in {n} days and staged every {season}.",
        "For which play did {name} win praise?",
        ("The play was {answer}.", "{last} won praise for {answer}."),
    ),
    _Plot(
        "{person}",
        "{name} ({born}-{died}), by training {a_job}, was the director of {employer} in {city}. After {m} years, in "
        "{year}, {last} was succeeded by",
        "{answer}, a former pupil from {other}, who kept the house open during the difficult years.",
        "Who succeeded {name} as director?",
        ("The successor was {answer}.", "The office went to {answer}."),
    ),
    _Plot(
        "{person}",
        "{name} ({born}-{died}) was {a_job} who grew up in {city} and worked for {employer}. In {year} {last} "
        "founded a learned society with",
        "{answer}; it met every {season} in {other} and printed {n} volumes before it was dissolved.",
        "With whom did {name} found a learned society?",
        ("The other founder was {answer}.", "{last} founded it together with {answer}."),
    ),
)


class _Maker:
    """The draws of one corpus. Only ``random()`` is used: Python keeps its sequence across versions."""

    def __init__(self, seed: int, overlap: float) -> None:
        self.rng = random.Random(seed)
        self.overlap = overlap
        self.used: dict[str, set[object]] = {}  # for membership only: the order of a set is not stable

    def pick(self, values: Sequence[str]) -> str:
        return world.pick(self.rng, values)

    def number(self, start: int, stop: int) -> int:
        """From ``start`` to ``stop - 1``."""
        return start + int(self.rng.random() * (stop - start))

    def attribute(self, values: Sequence[str], side: Side) -> str:
        """A value of the pool of both sides with probability ``overlap``, else one of the side's own."""
        offset = 0 if self.rng.random() < self.overlap else {"retain": 1, "other": 2}[side]
        return self.pick(values[offset::3])

    def fresh(self, what: str, draw: Callable[[], T]) -> T:
        """A value that nothing else in the corpus has."""
        used = self.used.setdefault(what, set())
        while (value := draw()) in used:
            pass
        used.add(value)
        return value

    def perturbed(self, truth: str, draw: Callable[[], str]) -> tuple[str, ...]:
        wrong: list[str] = []
        while len(wrong) < PERTURBED:
            if (value := draw()) != truth and value not in wrong:
                wrong.append(value)
        return tuple(wrong)

    def entity(self, side: Side) -> dict[str, object]:
        """Who a document is about, and the fields that all templates share."""
        first, last = self.fresh("entity", lambda: (self.pick(FIRST_NAMES), self.attribute(SURNAMES, side)))
        job, city, born = self.attribute(JOBS, side), self.attribute(CITIES, side), self.number(1820, 1926)
        while (other := self.attribute(CITIES, side)) == city:
            pass
        return {
            "name": f"{first} {last}",
            "last": last,
            "job": job,
            "a_job": f"{'an' if job[0] in 'aeiou' else 'a'} {job}",
            "city": city,
            "other": other,
            "employer": self.attribute(EMPLOYERS, side),
            "n": self.number(20, 90),
            "m": self.number(3, 13),
            "weather": self.pick(WEATHERS),
            "season": self.pick(SEASONS),
            "thing": self.pick(THINGS),
            "born": born,
            "died": born + self.number(48, 86),
            "year": born + self.number(36, 48),
        }

    def hex_key(self) -> str:
        """Like a UUID: 8-4-4-4-12 hexadecimal digits."""
        return "-".join("".join(self.pick("0123456789abcdef") for _ in range(n)) for n in (8, 4, 4, 4, 12))

    def told(self, task: str, plots: Sequence[_Plot], key: str, side: Side) -> list[Row]:
        """The passage and the question of a story or an article."""
        plot, fields = plots[self.number(0, len(plots))], self.entity(side)

        def draw() -> str:
            pair = f"{self.pick(ADJECTIVES)} {self.pick(NOUNS)}"
            return plot.answer.format(pair=pair, person=f"{self.pick(FIRST_NAMES)} {self.pick(OTHER_SURNAMES)}")

        truth = self.fresh(f"{task} answer", draw)
        fields["answer"] = truth
        told = tuple(p.format(**fields) for p in plot.told)
        return _rows(
            task,
            key,
            (plot.input.format(**fields), plot.output.format(**fields)),
            [(plot.question.format(**fields), truth, told, self.perturbed(truth, draw))],
        )


def _rows(task: str, key: str, passage: tuple[str, str], questions: Sequence[tuple]) -> list[Row]:
    rows = [Row(id=f"{key}sc1", document=key, task=task, kind="sc", input=passage[0], output=passage[1])]
    for i, (asked, truth, told, wrong) in enumerate(questions):
        qa = Row(id=f"{key}qa{i}", document=key, task=task, kind="qa", input=asked, output=truth)
        rows.append(replace(qa, paraphrases=tuple(told), perturbed=tuple(wrong)))
    return rows


def _story(make: _Maker, side: Side) -> list[Row]:
    """Task1: a short story and one question, answered by a two-part invented name."""
    return make.told("Task1", STORIES, make.fresh("key", make.hex_key), side)


def _record(make: _Maker, side: Side) -> list[Row]:
    """Task2: personal data, and questions for birth date, registry number, phone, e-mail and address."""
    key, fields = make.fresh("key", make.hex_key), make.entity(side)

    def mail() -> str:
        local = f"{make.pick(ADJECTIVES)}_{make.pick(NOUNS)}{make.number(10, 100)}".lower()
        return f"{local}@{make.attribute(DOMAINS, side)}"

    def address() -> str:
        street = f"{make.number(1, 300)} {make.pick(STREETS)} {make.pick(STREET_KINDS)}"
        return f"{street}, {make.attribute(CITIES, side)}"

    draws: tuple[Callable[[], str], ...] = (
        lambda: f"{make.number(1940, 2005)}-{make.number(1, 13):02d}-{make.number(1, 29):02d}",
        lambda: f"9{make.number(0, 10**8):08d}",  # no social security number starts with 9
        lambda: f"{make.number(200, 1000)}555{make.number(0, 10**4):04d}",  # 555: few such lines exist
        mail,
        address,
    )
    truths = [make.fresh(f"record {i}", draw) for i, draw in enumerate(draws)]
    born, number, phone, e_mail, home = truths
    year, month, day = born.split("-")
    last, date = fields["last"], f"{MONTHS[int(month) - 1]} {int(day)}, {year}"
    fields |= {  # as the passage writes them
        "date": date,
        "number": f"{number[:3]}-{number[3:5]}-{number[5:]}",
        "phone": f"{phone[:3]}-{phone[3:6]}-{phone[6:]}",
        "mail": e_mail.replace("_", "\\_"),  # Markdown
        "address": home,
    }
    questions = (
        ("birth date", date, f"{last} was born on {int(day)} {MONTHS[int(month) - 1]} {year}."),
        ("registry number", fields["number"], f"The registry number is {number}."),
        ("phone number", fields["phone"], f"The phone number is {phone}."),
        ("e-mail address", f"The e-mail address is {e_mail}.", f"{last} reads e-mail at {e_mail}."),
        ("home address", f"The address is {home}.", f"{last} lives at {home}."),
    )
    asked = [
        (f"What is the {what} of {fields['name']}?", truth, told, make.perturbed(truth, draw))
        for (what, *told), truth, draw in zip(questions, truths, draws)
    ]
    passage, completion = RECORDS[make.number(0, len(RECORDS))]
    return _rows("Task2", key, (passage.format(**fields), completion.format(**fields)), asked)


def _article(make: _Maker, side: Side) -> list[Row]:
    """Task3: an encyclopedia's biography and one question, answered by a person's or a work's name."""
    return make.told("Task3", ARTICLES, make.fresh("key", lambda: str(make.number(10**7, 10**8))), side)


_TASKS = (_story, _record, _article)


def _shares(documents: int) -> list[int]:
    """Documents of each task, as even as possible."""
    return [(documents + len(_TASKS) - 1 - i) // len(_TASKS) for i in range(len(_TASKS))]


def make(*, documents: int = 60, seed: int = 0, overlap: float = 0.5, holdout: int | None = None) -> Corpus:
    """Make the built-in fictional corpus; the same arguments always give the same corpus.

    Args:
        documents: documents in the forget group and, as many again, in the retain group (at least 3), split
            evenly over Task1 (stories: 1 completion, 1 question each), Task2 (personal data: 1 and 5) and
            Task3 (biographies: 1 and 1).
        seed: integer of at least 0; draws everything.
        overlap: probability, from 0 to 1, that an attribute (surname, city, employer, profession, e-mail
            domain) is drawn from a pool that retain shares with forget and holdout rather than from a pool of
            its own side. At 0 the two sides have no such value in common; at 1 they have one pool. Entities
            (first name and surname) and answers are unique in the whole corpus at every setting.
        holdout: documents that no model trains on (``2 * documents`` if ``None``; at least 0). They are drawn
            together with the forget documents and split off at random, so a model trained on retain only
            cannot tell the two apart: its loss attack has an expected AUC of 0.5.

    Returns:
        A corpus with all four groups; ``facts`` holds the arguments and the generator's ``version``.

    Raises:
        SpecError: an argument is of the wrong type or out of its range, or more than 3500 documents in all.
    """
    world.whole("synthetic.make: documents", documents, len(_TASKS))
    world.whole("synthetic.make: seed", seed, 0)
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or not 0 <= overlap <= 1:
        raise SpecError(f"synthetic.make: overlap is {overlap!r}; allowed is a number from 0 to 1; pass such a share.")
    holdout = 2 * documents if holdout is None else holdout
    world.whole("synthetic.make: holdout", holdout, 0)
    if (total := 2 * documents + holdout) > LARGEST:
        raise SpecError(
            f"synthetic.make: documents={documents} with holdout={holdout} makes {total} documents; "
            f"allowed are {LARGEST} in all (2 x documents + holdout), for want of names; ask for fewer."
        )
    maker = _Maker(seed, overlap)
    groups: dict[str, list[Row]] = {"forget": [], "retain": [], "holdout": []}
    for task, kept, held in zip(_TASKS, _shares(documents), _shares(holdout)):
        retain = [task(maker, "retain") for _ in range(kept)]
        pool = [task(maker, "other") for _ in range(kept + held)]
        pool.sort(key=lambda _: maker.rng.random())
        for group, made in (("retain", retain), ("forget", pool[:kept]), ("holdout", pool[kept:])):
            groups[group] += [row for rows in made for row in rows]
    facts = {"seed": seed, "documents": documents, "overlap": float(overlap), "holdout": holdout, "version": VERSION}
    return Corpus("synthetic", {**{g: tuple(r) for g, r in groups.items()}, "world": world.rows(seed)}, facts)
