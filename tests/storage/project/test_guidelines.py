"""The guidelines and their versions."""

import pytest

from storage.core.database import StoreError
from storage.judging import presentations, queue
from storage.project import guidelines


def test_before_the_first_version_there_is_none(store):
    assert guidelines.current(store) is None
    assert guidelines.versions(store) == []


def test_each_text_is_a_version_and_the_last_one_holds(world):
    first = guidelines.publish(world.store, " Be **kind**. \n", by=world.ann.id)
    second = guidelines.publish(world.store, "친절하게 답하세요.", by=None)
    assert (first.id, first.text, first.by_id) == (1, "Be **kind**.", world.ann.id)
    assert guidelines.current(world.store) == second
    assert guidelines.versions(world.store) == [second, first]


def test_the_same_text_again_is_no_new_version_but_going_back_is(world):
    first = guidelines.publish(world.store, "Be kind.", by=world.ann.id)
    assert guidelines.publish(world.store, "Be kind.\n\n", by=world.bob.id) == first
    guidelines.publish(world.store, "Be quick.", by=None)
    back = guidelines.publish(world.store, "Be kind.", by=world.bob.id)
    assert (back.id, back.by_id) == (3, world.bob.id)
    assert [version.text for version in guidelines.versions(world.store)] == ["Be kind.", "Be quick.", "Be kind."]


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_nothing_is_no_guidelines(store, text):
    with pytest.raises(StoreError, match="The guidelines are empty: write what annotators should know"):
        guidelines.publish(store, text, by=None)
    assert guidelines.versions(store) == []


def test_half_a_surrogate_pair_is_refused(store):
    with pytest.raises(StoreError, match="half a surrogate pair, which cannot be stored: type it again"):
        guidelines.publish(store, "Be kind \ud83d", by=None)
    assert guidelines.versions(store) == []


def test_who_publishes_must_be_somebody(store):
    with pytest.raises(StoreError, match="guidelines: FOREIGN KEY"):
        guidelines.publish(store, "Be kind.", by=99)


def test_a_judgment_can_be_traced_to_the_version_on_display(world):
    world.comparisons(2)
    first = guidelines.publish(world.store, "Be kind.", by=None)
    shown = queue.next_presentation(world.store, world.ann.id)[1]
    guidelines.publish(world.store, "Be quick.", by=None)
    # The page was opened before the second version.
    judged = world.rank(world.ann)
    assert judged.presentation_id == shown.id
    assert presentations.get(world.store, judged.presentation_id).guidelines_id == first.id
    assert queue.next_presentation(world.store, world.ann.id)[1].guidelines_id == 2
