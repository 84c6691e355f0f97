"""The sentences that this book claims, each a check over its records."""

from study.claims import statements
from study.claims.evidence import CLAIMS, Claim, ClaimError, Evidence, Finding
from study.claims.shown import abstract, examine, listing

__all__ = [
    "CLAIMS",
    "Claim",
    "ClaimError",
    "Evidence",
    "Finding",
    "abstract",
    "examine",
    "listing",
    "statements",
]
