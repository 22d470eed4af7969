"""Notes that a browser keeps of the accounts it has signed in as."""

from storage.people.known_browsers import MOST_NOTES, id_of, with_note


def test_a_browser_is_known_for_the_account_whose_note_it_has():
    kept = with_note("", "hash of ann", 1)
    assert len(id_of(kept, "hash of ann", 1)) == 32
    assert id_of("", "hash of ann", 1) is None


def test_a_note_is_of_one_account_and_one_password():
    kept = with_note("", "hash of ann", 1)
    assert id_of(kept, "hash of ann", 2) is None and id_of(kept, "another hash", 1) is None


def test_a_note_that_was_changed_is_none():
    kept = with_note("", "hash of ann", 1)
    browser_id, _, signature = kept.partition(".")
    assert id_of(f"{'0' * 32}.{signature}", "hash of ann", 1) is None
    assert id_of(f"{browser_id}.{'0' * 64}", "hash of ann", 1) is None
    assert id_of("no note at all", "hash of ann", 1) is None


def test_a_second_sign_in_keeps_the_browsers_id():
    first = with_note("", "hash of ann", 1)
    assert with_note(first, "hash of ann", 1) == first


def test_the_newest_accounts_stay():
    kept = ""
    for account in range(MOST_NOTES + 1):
        kept = with_note(kept, f"hash {account}", account)
    assert [id_of(kept, f"hash {account}", account) is not None for account in range(MOST_NOTES + 1)] == [False] + [True] * MOST_NOTES
