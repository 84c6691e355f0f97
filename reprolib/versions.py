"""Every number that is raised when the meaning of a result changes; all of them are part of fingerprints."""

from __future__ import annotations

TRAINING_VERSION = (
    1  # raise when memorise.py changes what it makes: models made before are then no longer used
)

SCHEMA = 1  # of records; part of every fingerprint
METRICS_VERSION = 1  # raise when a metric changes its value

SUITES = {
    "wide": 1,
    "stress": 1,
}  # of reprolib.probes, with their versions: raise when a number of theirs changes or is added
