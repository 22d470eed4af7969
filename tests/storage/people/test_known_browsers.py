"""Cookies with signed notes of the accounts that a browser has signed in as."""

from storage.people.known_browsers import MAX_NOTES, id_of, with_note


def test_a_browser_is_known_for_the_account_whose_note_it_has():
    cookie = with_note("", "hash of ann", 1)
    assert len(id_of(cookie, "hash of ann", 1)) == 32
    assert id_of("", "hash of ann", 1) is None


def test_a_note_is_valid_for_one_account_and_one_password():
    cookie = with_note("", "hash of ann", 1)
    assert id_of(cookie, "hash of ann", 2) is None and id_of(cookie, "another hash", 1) is None


def test_a_changed_note_is_invalid():
    cookie = with_note("", "hash of ann", 1)
    browser_id, _, signature = cookie.partition(".")
    assert id_of(f"{'0' * 32}.{signature}", "hash of ann", 1) is None
    assert id_of(f"{browser_id}.{'0' * 64}", "hash of ann", 1) is None
    assert id_of("no note at all", "hash of ann", 1) is None


def test_a_second_sign_in_keeps_the_browsers_id():
    first = with_note("", "hash of ann", 1)
    assert with_note(first, "hash of ann", 1) == first


def test_the_oldest_note_is_dropped():
    cookie = ""
    for account in range(MAX_NOTES + 1):
        cookie = with_note(cookie, f"hash {account}", account)
    assert [id_of(cookie, f"hash {account}", account) is not None for account in range(MAX_NOTES + 1)] == [False] + [True] * MAX_NOTES
