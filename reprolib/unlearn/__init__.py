"""The loop that every method goes through, and what it needs beside it."""

from reprolib.unlearn.checkpoint import Checkpoint
from reprolib.unlearn.loop import unlearn
from reprolib.unlearn.run import Outcome

__all__ = ["Checkpoint", "Outcome", "unlearn"]
