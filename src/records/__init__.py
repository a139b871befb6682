"""Records of points and of their means, as whatever shows or compares them reads them."""

from src.records.record import Evaluated, Layer, Member, Record, Results, read_record, read_whole

__all__ = ["Evaluated", "Layer", "Member", "Record", "Results", "read_record", "read_whole"]
