"""Records of points, of their means and of races among them, as whatever shows or compares them reads them."""

from src.records.race import CHOSEN, RACES, Agreement, Entrant, Hearing, Race, read_race, save_race
from src.records.record import Evaluated, Layer, Member, Record, Results, read_record, read_whole

__all__ = [
    "CHOSEN",
    "RACES",
    "Agreement",
    "Entrant",
    "Evaluated",
    "Hearing",
    "Layer",
    "Member",
    "Race",
    "Record",
    "Results",
    "read_race",
    "read_record",
    "read_whole",
    "save_race",
]
