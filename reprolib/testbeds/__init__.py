"""Testbeds: what a target and its twin are taught, and the models themselves."""

from reprolib.testbeds.beds import Testbed, testbed
from reprolib.testbeds.presets import PRESETS, Preset

__all__ = ["PRESETS", "Preset", "Testbed", "testbed"]
