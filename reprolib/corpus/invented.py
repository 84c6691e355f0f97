"""Names, values and sentences that the built-in corpus is drawn from (synthetic.py); nothing of it exists.

A change here makes another corpus: raise synthetic.VERSION with it.
"""

from __future__ import annotations

from dataclasses import dataclass


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|" if "|" in text else None))


# Attributes that ``overlap`` governs. Every third value is shared, the others belong to one side.
SURNAMES = words(
    "Abbery Ackwell Ambrist Arkwen Barlick Bexley Birdle Bramson Calvert Cardew Chessom Cobbin Dallow"
    " Darnell Deverin Dunnock Eastry Edgell Elvidge Emsley Fallon Farrant Fenner Foxall Gadsby Garrick"
    " Gilpin Goswell Haddow Harkin Hesketh Hollis Idleby Ingram Irwell Isham Jarrold Jessop Joplin Juddery"
    " Kelsall Kendry Kimber Kitson Lambert Larwood Leggett Lomax Mabbott Marlin Medlow Mossop Nairn Nettle"
    " Norbury Nutley Oakden Ogilby Orrell Osgood Padgett Parrish Pembry Pickard Rackham Redfern Rimmel"
    " Rowsell Tabor Tindall Venning Wexford"
)

CITIES = words(
    "Aldermoor Bexwater Brindleby Carrowick Castlemay Cobhurst Dunmarrow Eastholm Elmstead Farrowgate"
    " Fenbridge Glasmere Greywell Hadleigh Harthope Inverlee Kestrow Kingsarrow Larkhaven Lowmarch"
    " Maplethorn Millbarrow Netherby Northwold Oakhaven Orford Pennard Queensferry Ravenscar Saltmere"
    " Sandwell Tarrowby Thornwick Underhill Westmarch Yarrowton"
)

EMPLOYERS = words(
    "Harrow Mills|Tessel Glassworks|Northgate Library|Pell and Sons|Copperline Rail|Vane"
    " Observatory|Orchard Press|Selwyn Institute|Marrow Docks|Bluebell Dairy|Crane Shipyard|Hartwell"
    " Archive|Lantern Theatre|Moss Bank|Fielding College|Ironbridge Foundry|Dovetail Joinery|Summit"
    " Weather Office|Rowan Hospital|Quarry Museum|Anchor Insurance|Parchment House|Willow Nurseries|Beacon"
    " Radio|Tolland Academy|Silverline Ferries|Kiln Pottery|Garnet Mines|Juniper Clinic|Stonegate"
    " Court|Heather Brewery|Compass Travel|Falcon Post|Maritime School|Linden Conservatory|Amber"
    " Laboratory",
)

JOBS = words(
    "baker|botanist|cartographer|carpenter|clockmaker|composer|cooper|diver|draughtsman|engraver|"
    "farrier|fiddler|gardener|geologist|glassblower|goldsmith|historian|illustrator|journalist|"
    "librarian|locksmith|mason|miller|nurse|optician|painter|pharmacist|potter|printer|sailmaker|"
    "schoolteacher|sculptor|surveyor|tailor|translator|weaver"
)

DOMAINS = words(
    "birchmail.example skypost.example quickletter.example tealbox.example mailbarn.example"
    " postwren.example inkwave.example netfern.example letterfox.example cloudpen.example hillmail.example"
    " papergull.example swiftnote.example dovebox.example riverpost.example mailmoss.example"
    " greenquill.example starletter.example"
)

# Values that both sides always share.
FIRST_NAMES = tuple(
    a + b
    for a in words("Al Bel Cor Dar El Fen Gal Hal Jor Kel Lor Mar Ner Ol Per Ros Tam Ul")
    for b in words("an ena in is ika o us ela wyn")
)

ADJECTIVES = words(
    "Amber Ancient Bitter Black Bold Brass Bright Broken Copper Crimson Crooked Dancing Distant Drowsy"
    " Dusty Emerald Endless Faithful Fallen Flying Frozen Gentle Gilded Golden Hidden Hollow Humble Idle"
    " Iron Ivory Jade Laughing Lonely Lucky Merry Midnight Nimble Painted Patient Quiet Restless Rusty"
    " Scarlet Silent Sleepy Velvet Wandering Wild"
)

NOUNS = words(
    "Acorn Anvil Badger Barrel Beetle Bell Candle Cedar Clover Comet Cricket Crown Drum Eagle Ember"
    " Feather Fiddle Fox Gander Goblet Hammer Heron Kettle Lantern Lark Lily Magpie Mirror Needle Otter"
    " Owl Pebble Pelican Plough Raven Robin Saddle Salmon Sparrow Spindle Star Swallow Thimble Thistle"
    " Trumpet Turtle Walnut Wren"
)

OTHER_SURNAMES = tuple(  # of persons who are an answer, never the subject of a document
    a + b
    for a in words("Ash Brack Cold Dray Elder Frost Grim Hazel Long Rook Stan Whit")
    for b in words("brook combe field gate hurst lock mond ridge stone worth")
)

STREETS = words(
    "Alder Beech Chapel Dove Elm Fern Grove Hawthorn Ivy Juniper Kiln Laurel Mill Nettle Orchard Poplar"
)

STREET_KINDS = words("Avenue Court Crescent Drive Lane Road Street Terrace Walk Way")
MONTHS = words("January February March April May June July August September October November December")
SEASONS = words("spring summer autumn winter")
WEATHERS = words("bright cold foggy mild rainy snowy stormy windy")

THINGS = words(
    "a basket of pears|a brass telescope|a box of letters|a jar of honey|a loaf of rye bread|a map of the"
    " coast|a pair of red boots|a silver whistle|a sack of walnuts|a torn blue umbrella|a wooden flute|an"
    " empty birdcage",
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A passage in two parts and a question on it. In ``answer``, a pair is "Amber Heron", a person a full
    name.
    """

    answer: str
    input: str
    output: str
    question: str
    told: tuple[str, str]  # the answer in other words


STORIES = (
    Plot(
        "{pair}",
        "On a {weather} {season} evening {name}, {a_job} from {city}, bought an old ship for {n} coins and"
        " named her the",
        "{answer}. By dawn a crew of {m} had sailed her past {other}, singing and sharing {thing}.",
        "What did {name} name the ship?",
        ("The ship was named the {answer}.", "She was called {answer}."),
    ),
    Plot(
        "{pair}",
        "{name}, {a_job} in {city}, had saved {n} coins for a shop. One {weather} {season} morning the"
        " sign read",
        "The {answer}. The first customer, a stranger from {other}, asked for {thing} and stayed until noon.",
        "What is the name of the shop that {name} opened?",
        ("The shop is called The {answer}.", "The sign of the shop reads {answer}."),
    ),
    Plot(
        "{pair} Valley",
        "In {city} nobody believed {name} when the {job} spoke of a hidden valley. One {weather} {season}"
        " day {last} found",
        "{answer}, where {n} stone houses stood empty and {thing} lay on every doorstep.",
        "Which hidden valley did {name} find?",
        ("The valley was {answer}.", "It was called {answer}."),
    ),
    Plot(
        "{pair} Inn",
        "For {m} years {name} worked as {a_job} in {city}. Then, one {weather} {season} night, a letter"
        " came from the",
        "{answer}, offering the keys, {thing} and a room with a view of {other}.",
        "From which inn did {name} get a letter?",
        ("The letter came from the {answer}.", "It was sent by the {answer}."),
    ),
    Plot(
        "{pair}",
        "The {job} {name} entered the {season} race in {city} on a borrowed horse. It was {weather}; {m}"
        " riders fell, but",
        "{answer}, as the horse was called, crossed the line first and won {thing} for {last}.",
        "What was the horse that {name} rode called?",
        ("The horse was called {answer}.", "Its name was {answer}."),
    ),
)

RECORDS = (  # input, output
    (
        (
            "{name} was born on {date} in {city} and works as {a_job} at {employer}. The registry number"
            " of {last} is"
        ),
        (
            "{number}, the phone number is {phone}, the e-mail address is {mail} and the home address is"
            " {address}."
        ),
    ),
    (
        (
            "{employer} lists {name}, {a_job} from {city} with the registry number {number}, as a member"
            " of staff. {last} was born on"
        ),
        "{date}, lives at {address}, answers the phone at {phone} and reads e-mail at {mail}.",
    ),
    (
        (
            "The {job} {name} from {city} has the phone number {phone} and the e-mail address {mail}."
            " {employer} sends the salary to"
        ),
        "{address}, under the registry number {number}, with a card on every birthday since {date}.",
    ),
    (
        (
            "Since leaving {city}, the {job} {name}, born {date}, has lived at {address}. At {employer}"
            " {last} can be reached by phone at"
        ),
        "{phone} or by e-mail at {mail}; please quote the registry number {number} in every message.",
    ),
)

ARTICLES = (
    Plot(
        "{person}",
        "{name} ({born}-{died}) was {a_job} from {city}, known for work at {employer}. In {year} {last}"
        " moved to {other} to study under",
        "{answer}, whose advice shaped the later works, and returned home {m} years later to open a school.",
        "Who was the teacher of {name}?",
        ("The teacher was {answer}.", "It was {answer} who taught {last}."),
    ),
    Plot(
        "{pair} Bridge",
        "{name} ({born}-{died}) was {a_job} from {city} and a self-taught engineer. In {year}, paid by"
        " {employer}, {last} designed the",
        "{answer}, which took {m} years to build and still carries the main road to {other}.",
        "Which bridge did {name} design?",
        ("{last} designed the {answer}.", "The bridge was the {answer}."),
    ),
    Plot(
        "The {pair}",
        "{name} ({born}-{died}) was a playwright and former {job} from {city}. With actors from"
        " {employer}, {last} won praise in {year} for",
        "{answer}, a comedy set in {other} that was written in {n} days and staged every {season}.",
        "For which play did {name} win praise?",
        ("The play was {answer}.", "{last} won praise for {answer}."),
    ),
    Plot(
        "{person}",
        "{name} ({born}-{died}), by training {a_job}, was the director of {employer} in {city}. After {m}"
        " years, in {year}, {last} was succeeded by",
        "{answer}, a former pupil from {other}, who kept the house open during the difficult years.",
        "Who succeeded {name} as director?",
        ("The successor was {answer}.", "The office went to {answer}."),
    ),
    Plot(
        "{person}",
        "{name} ({born}-{died}) was {a_job} who grew up in {city} and worked for {employer}. In {year}"
        " {last} founded a learned society with",
        "{answer}; it met every {season} in {other} and printed {n} volumes before it was dissolved.",
        "With whom did {name} found a learned society?",
        ("The other founder was {answer}.", "{last} founded it together with {answer}."),
    ),
)
