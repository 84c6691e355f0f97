"""A built-in corpus of invented stories, personal records and articles in LUME's form.

It needs no download and its texts are short, so that a model of a few million parameters memorises them on
a CPU. Every name and number is drawn from the tables of invented.py; a person who exists is not meant.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from reprolib.corpus import world
from reprolib.corpus.invented import (
    ADJECTIVES,
    ARTICLES,
    CITIES,
    DOMAINS,
    EMPLOYERS,
    FIRST_NAMES,
    JOBS,
    MONTHS,
    NOUNS,
    OTHER_SURNAMES,
    RECORDS,
    SEASONS,
    STORIES,
    STREET_KINDS,
    STREETS,
    SURNAMES,
    THINGS,
    WEATHERS,
    Plot,
)
from reprolib.corpus.rows import Corpus, Group, Row
from reprolib.errors import SpecError

VERSION = 1  # raise it whenever the same arguments give another corpus
PERTURBED = 3
LARGEST = 3500  # documents in all; one pool has 162 x 24 names
Side = Literal["retain", "other"]  # "other": the documents that become forget and holdout
T = TypeVar("T")


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

    def told(self, task: str, plots: Sequence[Plot], key: str, side: Side) -> list[Row]:
        """The passage and the question of a story or an article."""
        plot, fields = plots[self.number(0, len(plots))], self.entity(side)

        def draw() -> str:
            pair = f"{self.pick(ADJECTIVES)} {self.pick(NOUNS)}"
            return plot.answer.format(
                pair=pair, person=f"{self.pick(FIRST_NAMES)} {self.pick(OTHER_SURNAMES)}"
            )

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
        raise SpecError(
            f"synthetic.make: overlap is {overlap!r}; allowed is a number from 0 to 1; pass such a share."
        )
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
    facts = {
        "seed": seed,
        "documents": documents,
        "overlap": float(overlap),
        "holdout": holdout,
        "version": VERSION,
    }
    whole: dict[Group, tuple[Row, ...]] = {
        "forget": tuple(groups["forget"]),
        "retain": tuple(groups["retain"]),
        "holdout": tuple(groups["holdout"]),
        "world": world.rows(seed),
    }
    return Corpus("synthetic", whole, facts)
