"""Real general knowledge, as questions: what a model should still know after it has unlearned."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from reprolib.corpus.rows import Row
from reprolib.errors import SpecError

WRONG_OPTIONS = 3


def _table(text: str) -> dict[str, str]:
    return dict(entry.split(": ") for entry in text.split("|"))


CAPITALS = _table(
    "France: Paris|Germany: Berlin|Italy: Rome|Spain: Madrid|Portugal: Lisbon|Austria: Vienna|Greece:"
    " Athens|Poland: Warsaw|Hungary: Budapest|Norway: Oslo|Sweden: Stockholm|Finland: Helsinki|Denmark:"
    " Copenhagen|Ireland: Dublin|Belgium: Brussels|Iceland: Reykjavik|Romania: Bucharest|Bulgaria:"
    " Sofia|Croatia: Zagreb|Ukraine: Kyiv|Russia: Moscow|Turkey: Ankara|Egypt: Cairo|Morocco: Rabat|Kenya:"
    " Nairobi|Ethiopia: Addis Ababa|Ghana: Accra|Japan: Tokyo|China: Beijing|India: New Delhi|Thailand:"
    " Bangkok|Vietnam: Hanoi|South Korea: Seoul|Australia: Canberra|Canada: Ottawa|Mexico: Mexico"
    " City|Cuba: Havana|Peru: Lima|Argentina: Buenos Aires|Brazil: Brasilia"
)

CURRENCIES = _table(
    "Japan: yen|China: yuan|India: rupee|Russia: ruble|Brazil: real|Poland: zloty|Hungary:"
    " forint|Thailand: baht|South Korea: won|Vietnam: dong|Israel: shekel|South Africa: rand|Nigeria:"
    " naira|Kenya: shilling|Turkey: lira|Ukraine: hryvnia|Malaysia: ringgit|Indonesia: rupiah|Mongolia:"
    " tugrik|Peru: sol"
)

ELEMENTS = _table(  # symbol and atomic number
    "hydrogen: H 1|helium: He 2|lithium: Li 3|carbon: C 6|nitrogen: N 7|oxygen: O 8|fluorine: F 9|neon: Ne"
    " 10|sodium: Na 11|magnesium: Mg 12|aluminium: Al 13|silicon: Si 14|phosphorus: P 15|sulfur: S"
    " 16|chlorine: Cl 17|argon: Ar 18|potassium: K 19|calcium: Ca 20|chromium: Cr 24|iron: Fe 26|nickel:"
    " Ni 28|copper: Cu 29|zinc: Zn 30|silver: Ag 47|tin: Sn 50|iodine: I 53|tungsten: W 74|gold: Au"
    " 79|lead: Pb 82|uranium: U 92"
)

_TABLES = (  # name, question, facts
    ("capital", "What is the capital of {}?", CAPITALS),
    ("currency", "What is the currency of {}?", CURRENCIES),
    ("symbol", "What is the chemical symbol of {}?", {k: v.split()[0] for k, v in ELEMENTS.items()}),
    ("number", "What is the atomic number of {}?", {k: v.split()[1] for k, v in ELEMENTS.items()}),
)


def pick(rng: random.Random, values: Sequence[str]) -> str:
    """One value, by ``random()`` alone: the only draw that Python promises to keep across versions."""
    return values[int(rng.random() * len(values))]


def rows(seed: int, limit: int | None = None) -> tuple[Row, ...]:
    """General-knowledge questions (task ``World``, kind ``qa``), each a document of its own.

    ``seed`` (an integer of at least 0) draws the three wrong options of each question (``perturbed``; answers
    of other entries of the same table, so of the same type) and the order of the rows. ``limit`` (rows; all
    120 if ``None``) keeps the first rows of that order, a random mix of capitals, currencies, and elements'
    symbols and atomic numbers. Raises :class:`SpecError` for a ``seed`` or ``limit`` that is no whole number
    in its range.
    """
    whole("world.rows: seed", seed, 0)
    if limit is not None:
        whole("world.rows: limit", limit, 0)
    rng = random.Random(seed)
    made = []
    for table, question, facts in _TABLES:
        answers = tuple(facts.values())
        for entry, truth in facts.items():
            wrong: list[str] = []
            while len(wrong) < WRONG_OPTIONS:
                option = pick(rng, answers)
                if option != truth and option not in wrong:
                    wrong.append(option)
            key = f"world-{table}-{entry.lower().replace(' ', '-')}"
            ask = Row(
                id=f"{key}qa0",
                document=key,
                task="World",
                kind="qa",
                input=question.format(entry),
                output=truth,
            )
            made.append(replace(ask, perturbed=tuple(wrong)))
    return tuple(sorted(made, key=lambda _: rng.random())[:limit])


def whole(name: str, value: object, least: int) -> None:
    """Raise :class:`SpecError` unless ``value`` is an integer (no bool) of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SpecError(
            f"{name} is {value!r}; allowed is an integer of at least {least}; pass such a number."
        )
