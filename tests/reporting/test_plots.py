from __future__ import annotations

from itertools import combinations
from pathlib import Path

from matplotlib.text import Annotation

from src.reporting.marks import marks
from src.reporting.panels import panels
from src.reporting.plots import pareto
from tests.reporting.recorded import points, record, write


def test_names_of_points_of_the_front_that_lie_close_can_be_read(tmp_path: Path) -> None:
    """A byte more, an error less."""
    found = [record(method, "clean", 2.0 - 0.01 * number) for number, method in enumerate(("rtn", "gptq", "awq"))]
    for number, each in enumerate(found):
        each["results"]["quantize"]["disk_bytes"] += number
        each["results"]["profile"] = dict.fromkeys(("memory_io_bytes", "bops"), 1000.0 + number)
    write(tmp_path, *found, record("hqq", "clean", 9.0, wbits=8, bits="w8a16"))
    (panel,) = panels(points(tmp_path))
    panel.points.loc[panel.points["method"] == "hqq", ["disk_bytes", "memory_io_bytes", "bops"]] = 2000
    drawn = pareto(panel, marks(panel.points["series"]))
    drawn.draw_without_rendering()
    for ax in drawn.axes:
        names = [each for each in ax.texts if isinstance(each, Annotation)]
        assert {each.get_text() for each in names} == {"rtn w4a16", "gptq w4a16", "awq w4a16"}
        boxes = [each.get_window_extent().shrunk(0.99, 0.8) for each in names]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
