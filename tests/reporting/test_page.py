"""The page as a person has it: a file in headless Chromium, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.report import main
from src.text.normalizers import ENGLISH_RULES
from tests.composed import composed
from tests.reporting.recorded import record, worst_row, write, write_failure, write_race, write_worst
from tests.utterances import load_utterances

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = "</script><img src=x onerror=alert(1)><!-- <script>"

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)


def costing(point: dict[str, Any], size: int) -> dict[str, Any]:
    point["results"]["quantize"]["disk_bytes"] = size
    return point


def made(folder: Path, *options: str) -> Path:
    """Makes the report of a folder without plot files; the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["report", str(folder), "--plots", "0", *options])
        main()
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on two sets; one point with a hostile transcript and a clip that can be heard; one failure."""
    folder = tmp_path_factory.mktemp("outputs")
    points = [
        costing(record("rtn", "clean", 12.0), 3_000_000),
        costing(record("gptq", "clean", 10.0), 2_000_000),
        costing(record("awq", "clean", 11.0), 4_000_000),
        record("rtn", "other", 20.0),
    ]
    write(folder, *points)
    clip = load_utterances(composed("dataset=sandbox_clean").dataset, 0)[0]
    rows = [worst_row(clip.id, clip.text, "alpha", clip.text), worst_row("gone", "a cat sat", "a", "a cat")]
    rows.append(worst_row(HOSTILE, f"a {HOSTILE}", "b", "a"))
    write_worst(folder, points[0], *rows)
    write_failure(folder, "f1", reason=f"ValueError: {HOSTILE}")
    write_race(folder, "r1", fixed=[HOSTILE])
    return made(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the dev extra)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The page anew, 1280 px wide; afterwards nothing may have gone wrong in its console."""
    sized(browser, 1280)
    browser.get(page.as_uri())
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def sized(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def focus(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)


def test_texts_from_records_stay_texts_and_nothing_is_fetched(opened: Any) -> None:
    assert texts(opened, "#transcript-list li:nth-child(3) code") == [HOSTILE]
    scored, published = texts(opened, "#transcript-list li:nth-child(3) dd")[:2]
    assert (scored, published) == (ENGLISH_RULES.normalize(f"a {HOSTILE}"), f"a {HOSTILE}")
    assert HOSTILE in texts(opened, "#failed dd")[1]
    assert opened.execute_script("return document.querySelectorAll('img, main script').length") == 0
    assert opened.execute_script("return document.scripts.length") == 2  # the data and what shows them
    assert opened.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)") == []
    assert texts(opened, "#failed code") == ["python -m src.main method=spqr"]


def test_differences_are_marked_by_elements_and_can_be_to_full_precision(opened: Any) -> None:
    assert texts(opened, "#transcript-list li:nth-child(2) dd:nth-of-type(2) del") == ["sat"]
    opened.execute_script(
        "const side = document.querySelectorAll('#transcript-controls select')[1];"
        "side.value = 'fp'; side.dispatchEvent(new Event('change'))"
    )
    assert texts(opened, "#transcript-list li:nth-child(2) dd:nth-of-type(2) del") == []
    assert texts(opened, "#transcript-list li:nth-child(2) dd:nth-of-type(3) del") == ["cat"]


def test_a_race_tells_what_was_chosen_and_how_far_the_others_came(opened: Any) -> None:
    assert texts(opened, "#races h3") == ["The lowest error rate on clean, at most 3 MB"]
    assert texts(opened, "#races article > .hint") == [f"3 candidates, 22 utterances decoded. In common: {HOSTILE}."]
    rows = [texts(opened, f"#races article > .scroll tbody tr:nth-child({n}) > *") for n in (1, 2, 3)]
    assert rows == [
        ["method=gptq", "2.00", "10.00", "11.00 (10.0–12.0)", "front", "chosen"],
        ["method=rtn", "1.00", "19.00 (18.0–20.0)", "–", "front", "+9.00 (+4.00 to +12.00) on 6 clips"],
        ["method=fp", "16.00", "–", "–", "", "too large"],
    ]
    assert texts(opened, "#races tr.chosen th") == ["method=gptq"]
    assert len(texts(opened, "#races svg[role=img] g")) == 2, "what was not heard is not in the plot"
    assert len(texts(opened, "#races svg .part")) == 1
    assert texts(opened, "#races table")[1].endswith("WER on 6 clipsall–+0.50 (3)")


def test_audio_plays_from_the_page_and_its_absence_has_a_reason(opened: Any) -> None:
    script = """
    const [audio, done] = [document.querySelector("audio"), arguments[0]];
    audio.onloadedmetadata = () => done(audio.duration);
    audio.onerror = () => done(audio.error.message);
    audio.load();
    """
    clip = load_utterances(composed("dataset=sandbox_clean").dataset, 0)[0]
    assert opened.execute_async_script(script) == pytest.approx(clip.seconds, abs=0.01)
    assert texts(opened, "#transcript-list li:nth-child(2) p") == [
        "No audio here: the test set no longer has this utterance."
    ]


def test_headings_sort_by_keyboard_and_say_so(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    focus(opened, "#sort-disk_bytes")
    press(opened, Keys.ENTER)
    assert texts(opened, "th[aria-sort=ascending]") == ["MB"]
    assert texts(opened, "#table tbody td:nth-child(7)") == ["0.00", "2.00", "3.00", "4.00"]
    press(opened, Keys.ENTER)  # the focus is still there
    assert texts(opened, "th[aria-sort=descending]") == ["MB"]
    assert texts(opened, "#table tbody td:nth-child(7)") == ["4.00", "3.00", "2.00", "0.00"]


def test_filters_hold_for_table_and_plot_and_can_be_cleared(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    focus(opened, "#filters input")
    press(opened, "gptq")
    assert texts(opened, "#table tbody th") == ["gptq"]
    assert len(texts(opened, "svg .point")) == 1
    press(opened, "x")
    assert texts(opened, "#table tbody th") == []
    assert opened.execute_script("return document.getElementById('nothing').checkVisibility()")
    focus(opened, "#reset")
    press(opened, Keys.ENTER)
    assert len(texts(opened, "#table tbody th")) == 4


def test_a_plot_has_one_test_set_and_is_walked_with_the_arrow_keys(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    focus(opened, "svg .point[tabindex='0']")
    tips = []
    for _ in range(3):
        tips.append(texts(opened, "#tooltip")[0].splitlines()[:2])
        press(opened, Keys.ARROW_RIGHT)
    assert tips == [
        ["sandbox_moonshine, gptq w4a16, clean", "WER 10.00 % (9.00 to 11.00)"],
        ["sandbox_moonshine, rtn w4a16, clean", "WER 12.00 % (11.00 to 13.00)"],
        ["sandbox_moonshine, awq w4a16, clean", "WER 11.00 % (10.00 to 12.00)"],
    ]
    press(opened, Keys.ARROW_RIGHT, Keys.ENTER)  # round again to rtn
    assert opened.execute_script("return document.activeElement.id") == "transcripts"
    assert "rtn w4a16, clean: 3 of 10 transcripts changed, 1 better, 2 worse" in texts(opened, "#transcripts-about")[0]


def test_versions_that_differ_are_columns_and_plots_of_their_own(browser: Any, tmp_path: Path) -> None:
    other = record("gptq", "clean", 3.0)
    other["versions"] = {**other["versions"], "normalizer": "other/2"}
    other["results"]["evaluate"]["metric"] = "CER"
    browser.get(made(write(tmp_path, record("rtn", "clean", 2.0), other)).as_uri())
    assert "Normalizer" in texts(browser, "#table thead th")
    assert [len(texts(browser, "svg .point")), len(texts(browser, "#table tbody tr"))] == [1, 2]
    assert "WER, CER %" in texts(browser, "#table thead th")
    assert {"2.00 (1.0–3.0) WER", "3.00 (2.0–4.0) CER"} <= set(texts(browser, "#table tbody td"))
    assert "No table: normalizer: the records were made with different versions" in texts(browser, "#notes li")[0]


def test_a_page_without_points_shows_the_failures(browser: Any, tmp_path: Path) -> None:
    write_failure(tmp_path, "f1")
    browser.get(made(tmp_path).as_uri())
    assert texts(browser, "#summary") == ["0 points, 1 failure."]
    assert not browser.execute_script("return document.getElementById('points').checkVisibility()")
    assert texts(browser, "nav a:not([hidden])") == ["Transcripts", "Failures"]
    assert texts(browser, "#failed h3") == ["sandbox_moonshine, spqr, w2a16, clean"]


def test_damaged_data_are_told(browser: Any, page: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.html"
    damaged.write_text(page.read_text(encoding="utf-8").replace('id="data">{', 'id="data">{,'), encoding="utf-8")
    browser.get(damaged.as_uri())
    assert "This page cannot show its data" in texts(browser, "#trouble")[0]


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_width_and_is_legible(opened: Any, width: int, scheme: str) -> None:
    sized(opened, width)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    lightness = opened.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128")
    assert lightness is (scheme == "light")
    assert opened.execute_script(CONTRASTS) == []


CONTRASTS = """
const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  const back = getComputedStyle(node).backgroundColor;
  return back !== "rgba(0, 0, 0, 0)" ? back : behind(node.parentElement);
};
const poor = [];
const shown = "h1, h2, p, a, label, select, button, th, td, dt, dd, del, ins, code, caption";
for (const node of document.querySelectorAll(shown)) {
  if (!node.checkVisibility() || !node.textContent.trim() || node.className === "skip") continue;
  const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.textContent.slice(0, 40));
}
return poor;
"""
