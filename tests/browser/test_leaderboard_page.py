"""The Leaderboard page in a browser shows the stored standings, on a wide screen and on a phone."""

import pytest
from playwright.sync_api import expect

from rlhf.analysis.leaderboard import leaderboard
from storage.judging import judgments, queue
from storage.people import annotators
from tests.browser.program import SECRET_MODELS

pytestmark = pytest.mark.slow


@pytest.fixture
def judged(program):
    """Twelve votes by the local annotator: the first model wins nine, loses two and ties one."""
    local = annotators.ensure(program.store, "local")
    for number in range(12):
        program.put_in(f"First {number}.", f"Second {number}.")
        comparison, shown = queue.next_presentation(program.store, local.id)
        first, second = (completion.id for completion in comparison.completions)
        tiers = ((first, second),) if number == 11 else ((second,), (first,)) if number > 8 else ((first,), (second,))
        judgments.save(program.store, shown.id, local.id, verdict="rank", tiers=tiers)
    return program


@pytest.fixture
def board(judged, page):
    page.goto(judged.url)
    open_tab(page)
    return page


def open_tab(page):
    page.get_by_role("tab", name="Leaderboard").click()
    expect(page.get_by_test_id("own-progress")).to_be_visible()


def test_the_standings_are_those_of_the_store(judged, board):
    standings = leaderboard(judged.store).standings
    shown = board.get_by_test_id("standings")
    # Other tests may have judged in the same store before.
    assert {row.name for row in standings} >= set(SECRET_MODELS)
    for row in standings:
        line = shown.locator(f"tr[data-policy='{row.name}']")
        expect(line).to_contain_text(f"{row.score.value:,.0f}")
        expect(line).to_contain_text(f"{row.wins} · {row.ties} · {row.losses}")
    assert shown.locator("tbody tr").first.get_attribute("data-policy") == standings[0].name


def test_own_progress_is_updated_when_the_tab_is_opened_again(judged, board):
    total = judged.judged()
    own = board.get_by_test_id("own-progress")
    expect(own).to_contain_text(f"{total}")
    board.get_by_role("tab", name="Compare").click()
    judged.put_in("One more.", "And another.")
    judged.clear_queue()
    open_tab(board)
    expect(own.locator("dd").nth(1)).to_have_text(f"{total + 1}")


def test_a_name_is_shown_as_long_as_its_owner_wants(judged, board):
    listed = board.get_by_test_id("annotators")
    expect(listed).to_contain_text("Annotator 1 (you)")
    board.locator("#leaderboard-show-name input").check()
    expect(listed).to_contain_text("local (you)")
    board.reload()
    open_tab(board)
    expect(listed).to_contain_text("local (you)")
    expect(board.locator("#leaderboard-show-name input")).to_be_checked()
    board.locator("#leaderboard-show-name input").uncheck()
    expect(listed).to_contain_text("Annotator 1 (you)")


def test_on_a_phone_nothing_is_wider_than_the_screen(judged, board):
    board.set_viewport_size({"width": 390, "height": 844})
    expect(board.get_by_test_id("standings")).to_be_visible()
    # Gradio moves the tabs that have no room a moment after the screen has narrowed.
    board.wait_for_function("() => document.documentElement.scrollWidth <= 390")
    track = board.locator(".rl-standings .rl-track").first.bounding_box()
    assert track["width"] > 200
    assert board.locator("#leaderboard-show-name label").bounding_box()["height"] >= 24


def test_the_interval_is_drawn_at_its_scores(judged, board):
    """Compares the dot of a row with the marks of the scale above it."""
    row = next(s for s in leaderboard(judged.store).standings if s.name == SECRET_MODELS[0])
    marks = board.locator(".rl-scale-marks > i")
    at = {int(marks.nth(i).inner_text().replace(",", "")): centre(marks.nth(i)) for i in range(marks.count())}
    low, high = min(at), max(at)
    expected = at[low] + (row.score.value - low) / (high - low) * (at[high] - at[low])
    dot = board.locator(f"tr[data-policy='{row.name}'] .rl-dot")
    assert centre(dot) == pytest.approx(expected, abs=1.5)


def centre(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2
