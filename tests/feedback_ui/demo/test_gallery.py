"""The gallery's handlers: which run is shown, from the store and the run's folder alone."""

import pytest
from called_pages import ENGLISH, page

from rlhf.runs import token_changes
from rlhf.runs.token_changes import AnswerChange, SampleChange, TokenChange, TokenChanges
from storage.content import prompts
from storage.core.data_folder import DataFolder
from storage.project import runs


@pytest.fixture
def gallery(app, store, server):
    server.fall_over("the gallery needs no policy server")
    prompts.add(store, [prompts.NewPrompt(({"role": "user", "content": text},)) for text in ("Bread?", "Sky?")], source="test")
    for run_id in ("r1", "r2", "r3"):
        runs.create(store, run_id, config={}, seed=0, versions={})
        for number, prompt in enumerate(prompts.of_split(store)):
            runs.save_sample(store, run_id, prompt.id, before="base", score_before=0.5)
            if run_id != "r3":
                runs.set_sample_after(store, run_id, prompt.id, after=f"tuned {number}", score_after=number)
    folder = DataFolder(store.path.parent).run("r2")
    folder.mkdir(parents=True)
    before = AnswerChange([TokenChange("base", 0.0)])
    changes = [SampleChange(i, before, AnswerChange([TokenChange(f"tuned {i}", 1.0 + i)])) for i in (0, 1)]
    token_changes.write(folder, TokenChanges(1.0, changes))
    return page(app, "DemoPage").gallery


def test_the_newest_run_with_tuned_answers_is_shown_and_a_link_names_another(gallery):
    shown = gallery.open("", None, None, True, ENGLISH)
    assert [value for _, value in shown[gallery.run].choices] == ["r2", "r1"] and shown[gallery.run].value == "r2"
    assert "rl-up-3" in shown[gallery.samples]
    assert gallery.open("r1", "r2", None, True, ENGLISH)[gallery.run].value == "r1"
    assert gallery.open("r3", "r1", "lost", True, ENGLISH)[gallery.run].value == "r1"


def test_changed_most_comes_first(gallery):
    html = gallery.show("r2", "changed", True, ENGLISH)
    assert html.index("Sky?") < html.index("Bread?")
    assert (html := gallery.show("r2", "asked", True, ENGLISH)).index("Bread?") < html.index("Sky?")


@pytest.mark.parametrize("run_id", [None, "r3", "nowhere", "../r2", "r2/../.."])
def test_what_is_no_run_with_answers_shows_none(gallery, run_id):
    assert "No answers yet" in gallery.show(run_id, "asked", True, ENGLISH)


def test_without_its_file_a_run_shows_the_texts_alone(gallery):
    html = gallery.show("r1", "changed", True, ENGLISH)
    assert "did not measure" in html and "tuned 1" in html
