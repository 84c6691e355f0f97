"""The built-in corpus: form, determinism, unguessable answers, the overlap knob, exchangeable holdout."""

import re
from statistics import mean

import pytest

from reprolib.corpus import synthetic, world
from reprolib.corpus.rows import Corpus, Row, select
from reprolib.errors import SpecError

FICTION = ("forget", "retain", "holdout")


TASKS = ("Task1", "Task2", "Task3")


QUESTIONS = {"Task1": 1, "Task2": 5, "Task3": 1}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return synthetic.make(documents=100, seed=3)


def fiction(corpus: Corpus) -> list[Row]:
    return [row for group in FICTION for row in corpus[group]]


def answers(rows, task: str, index: int) -> list[str]:
    return [r.output for r in rows if r.task == task and r.id.endswith(f"qa{index}")]


def entities(rows) -> dict[str, tuple[str, str]]:
    """First name and surname of each document, read off its first question."""
    found = {}
    for row in rows:
        if row.id.endswith("qa0"):
            (pair,) = [
                m for m in re.findall(r"(?=\b([A-Z][a-z]+) ([A-Z][a-z]+)\b)", row.input) if m[1] in synthetic.SURNAMES
            ]
            found[row.document] = pair
    return found


def test_same_arguments_same_corpus_and_another_seed_another():
    assert synthetic.make(documents=12, seed=5).groups == synthetic.make(documents=12, seed=5).groups
    prints = {synthetic.make(documents=12, seed=s).fingerprint for s in range(4)}
    assert len(prints) == 4


def test_generator_is_unchanged():
    """If this fails on purpose, raise ``synthetic.VERSION`` too: earlier results belong to the other corpus."""
    assert (synthetic.VERSION, synthetic.make(documents=6, seed=0).fingerprint) == (1, "69ed9b8271f4e5f0")


def test_facts_and_name():
    corpus = synthetic.make(documents=6, seed=1, overlap=1, holdout=5)
    assert corpus.name == "synthetic" and corpus.tasks == TASKS
    assert corpus.facts == {"seed": 1, "documents": 6, "overlap": 1.0, "holdout": 5, "version": 1}


@pytest.mark.parametrize(
    "documents, holdout, kept, held",
    [(3, None, (1, 1, 1), (2, 2, 2)), (8, 4, (3, 3, 2), (2, 1, 1)), (7, 0, (3, 2, 2), (0, 0, 0))],
)
def test_documents_are_split_evenly_over_the_tasks(documents, holdout, kept, held):
    corpus = synthetic.make(documents=documents, holdout=holdout)
    for group, expected in (("forget", kept), ("retain", kept), ("holdout", held)):
        assert tuple(len(select(corpus[group], kind="sc", task=t)) for t in TASKS) == expected


def test_rows_of_each_document(corpus):
    for group in FICTION:
        for document in corpus.documents(group):
            rows = [r for r in corpus[group] if r.document == document]
            (task,) = {r.task for r in rows}
            assert [r.id.removeprefix(document) for r in rows] == ["sc1", *(f"qa{i}" for i in range(QUESTIONS[task]))]
            assert [r.kind for r in rows] == ["sc"] + ["qa"] * QUESTIONS[task]
            form = r"\d{8}" if task == "Task3" else r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
            assert re.fullmatch(form, document)


def test_texts_are_clean_and_short(corpus):
    for row in fiction(corpus):
        for text in (row.input, row.output, *row.paraphrases, *row.perturbed):
            assert text == text.strip() and "{" not in text and "  " not in text and text.isascii()
        assert row.input.endswith("?") == (row.kind == "qa")
        if row.kind == "sc":
            assert 15 <= len(row.input.split()) <= 30 and 10 <= len(row.output.split()) <= 21
            assert row.input[-1] not in ".!"  # it ends in the middle of a sentence


def test_questions_are_unique_and_do_not_hold_their_answer(corpus):
    asked = select(fiction(corpus), kind="qa")
    assert len({r.input for r in asked}) == len(asked)
    assert not [r.id for r in asked if r.output.lower() in r.input.lower()]


def test_stories_and_articles_tell_the_answer(corpus):
    for task in ("Task1", "Task3"):
        told = {r.document: r.text for r in select(fiction(corpus), kind="sc", task=task)}
        assert all(r.output in told[r.document] for r in select(fiction(corpus), kind="qa", task=task))


def test_records_tell_the_same_facts_in_another_form(corpus):
    forms = (r"\d{4}-\d\d-\d\d", r"9\d{8}", r"\d{10}", r"[a-z]+_[a-z]+\d\d@[a-z]+\.example", r"\d+ \w+ \w+, \w+")
    told = {r.document: r.text for r in select(fiction(corpus), kind="sc", task="Task2")}
    for row in select(fiction(corpus), kind="qa", task="Task2"):
        index, text = int(row.id[-1]), told[row.document]
        assert re.fullmatch(forms[index], row.output)
        assert all(re.fullmatch(forms[index], wrong) for wrong in row.perturbed)
        if index == 0:
            assert row.output not in text and row.paraphrases[0] in text
        else:
            assert (row.output in text) == (index == 4)  # only the address is written alike
            plain = text.replace("\\", "") if index == 3 else text.replace("-", "")
            assert row.output in (text if index == 4 else plain)


def test_entities_are_unique_and_no_answer_is_an_entity(corpus):
    pairs = list(entities(fiction(corpus)).values())
    assert len(pairs) == 400 == len(set(pairs))
    assert not {" ".join(p) for p in pairs} & {r.output for r in select(fiction(corpus), kind="qa")}


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
def test_answers_are_distinct_and_not_shared_with_retain(overlap):
    corpus = synthetic.make(documents=100, seed=8, overlap=overlap)
    for task, questions in QUESTIONS.items():
        for index in range(questions):
            values = answers(fiction(corpus), task, index)
            assert len(set(values)) >= 0.95 * len(values)
            known = set(answers(corpus["retain"], task, index))
            forget = answers(corpus["forget"], task, index)
            assert sum(a in known for a in forget) < 0.02 * len(forget)


def test_other_wordings_and_false_answers(corpus):
    for row in fiction(corpus):
        if row.kind == "sc":
            assert row.paraphrases == row.perturbed == ()
            continue
        assert len(set(row.paraphrases)) == 2 and row.output not in row.paraphrases
        assert len(set(row.perturbed)) == 3 and row.output not in row.perturbed
        assert not set(row.perturbed) & set(row.paraphrases)
        assert len({len(w.split()) for w in (row.output, *row.perturbed)}) == 1  # the same form


def surname_share(overlap: float, seed: int) -> float:
    corpus = synthetic.make(documents=60, seed=seed, overlap=overlap)
    known = {last for _, last in entities(corpus["retain"]).values()}
    return mean(last in known for _, last in entities(corpus["forget"]).values())


def test_overlap_is_the_share_of_common_values():
    shares = [[surname_share(o, seed) for seed in range(4)] for o in (0.0, 0.25, 0.5, 0.75, 1.0)]
    means = [mean(s) for s in shares]
    assert means == sorted(set(means))
    assert max(shares[0]) == 0 and min(shares[-1]) > 0.8


@pytest.mark.parametrize("values", [synthetic.CITIES, synthetic.EMPLOYERS, synthetic.JOBS, synthetic.DOMAINS])
def test_without_overlap_the_sides_have_no_attribute_in_common(values):
    corpus = synthetic.make(documents=60, overlap=0)
    kept, other = (
        {v for v in values if any(re.search(rf"\b{v}\b", f"{r.text} {r.perturbed}") for g in groups for r in corpus[g])}
        for groups in (("retain",), ("forget", "holdout"))
    )
    assert kept and other and not kept & other


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
def test_holdout_is_as_near_to_retain_as_forget(overlap):
    """The AUC of an attack that scores a passage by the share of its words that retain has, over seeds."""
    found = []
    for seed in range(12):
        corpus = synthetic.make(documents=60, seed=seed, overlap=overlap)
        known = {w for r in corpus["retain"] for w in r.text.split()}
        forget, holdout = (
            [mean(w in known for w in r.text.split()) for r in select(corpus[g], kind="sc")]
            for g in ("forget", "holdout")
        )
        found.append(mean((f > h) + (f == h) / 2 for f in forget for h in holdout))
    assert abs(mean(found) - 0.5) < 0.04  # standard error about 0.010


def test_largest_corpus_has_enough_names():
    corpus = synthetic.make(documents=866, overlap=1)
    assert len(corpus.documents("forget")) == 866 and len(corpus.documents("holdout")) == 1732


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"documents": 2}, "documents is 2"),
        ({"documents": 6.0}, "documents is 6.0"),
        ({"documents": True}, "documents is True"),
        ({"documents": 900}, "3600 documents"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"overlap": 1.1}, "overlap is 1.1"),
        ({"overlap": -0.1}, "overlap is -0.1"),
        ({"overlap": float("nan")}, "overlap is nan"),
        ({"overlap": "0.5"}, "overlap is '0.5'"),
        ({"overlap": True}, "overlap is True"),
        ({"holdout": -1}, "holdout is -1"),
        ({"holdout": 4000}, "4120 documents"),
    ],
)
def test_bad_arguments_are_refused(arguments, named):
    with pytest.raises(SpecError, match=re.escape(named)) as error:
        synthetic.make(**arguments)
    assert "allowed" in str(error.value)


def test_world_rows():
    rows = world.rows(0)
    assert len(rows) == 120 == len({r.input for r in rows}) == len({r.document for r in rows})
    for row in rows:
        assert (row.task, row.kind, row.id) == ("World", "qa", f"{row.document}qa0")
        assert re.fullmatch(r"world-[a-z-]+", row.document) and row.input.endswith("?")
        assert len(set(row.perturbed)) == 3 and row.output not in row.perturbed
    truth = {r.document: r.output for r in rows}
    known = ("world-capital-france", "world-symbol-gold", "world-number-iron")
    assert [truth[k] for k in known] == ["Paris", "Au", "26"]
    for table in ("capital", "currency", "symbol", "number"):  # wrong options are of the same type
        mine = [r for r in rows if r.document.startswith(f"world-{table}-")]
        assert len({r.output for r in mine}) == len(mine)
        assert {w for r in mine for w in r.perturbed} <= {r.output for r in mine}


def test_world_is_the_same_for_every_corpus_size_and_can_be_cut():
    for documents in (3, 30):
        assert synthetic.make(documents=documents, seed=2)["world"] == world.rows(2)
    assert world.rows(2, limit=10) == world.rows(2)[:10] and world.rows(2) != world.rows(3)
    assert {r.id: r.output for r in world.rows(2)} == {r.id: r.output for r in world.rows(3)}
    for bad in ({"seed": -1}, {"seed": 0, "limit": -1}, {"seed": 0, "limit": 1.5}):
        with pytest.raises(SpecError, match="world"):
            world.rows(**bad)
