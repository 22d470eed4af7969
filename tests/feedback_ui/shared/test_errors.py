"""Error messages in a browser name no folder of the server."""

import pytest

from feedback_ui.shared.errors import browser_message, without_paths
from storage.core.database import StoreError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/srv/data/rankloop.db: database is locked. Nothing was saved.", "rankloop.db: database is locked. Nothing was saved."),
        ("/home/ann lee/my data/rankloop.db: disk full, then try", "rankloop.db: disk full, then try"),
        ("[Errno 2] No such file or directory: '/tmp/gradio/abc/up.jsonl'", "[Errno 2] No such file or directory: 'up.jsonl'"),
        ("see /srv/a/log.txt and /srv/b/other.txt", "see log.txt and other.txt"),
        ("the log says why:\n/srv/data/logs/worker.log", "the log says why:\nworker.log"),
        ('File "/srv/rlhf/round.py", line 3', 'File "round.py", line 3'),
        (r"C:\Users\Ann Lee\data\rankloop.db: locked", "rankloop.db: locked"),
        (r"\\server\share\rankloop.db: locked", "rankloop.db: locked"),
        ("--data=/srv/data is no folder", "--data=data is no folder"),
        ("(file:///srv/data/x.db)", "(file://x.db)"),
        ("http://127.0.0.1:8000/v1/models does not answer", "http://127.0.0.1:8000/v1/models does not answer"),
        ("3/4 of the rows, and/or none", "3/4 of the rows, and/or none"),
        ("data/rankloop.db: locked", "data/rankloop.db: locked"),
        ("a / b", "a / b"),
        ("", "StoreError"),
    ],
)
def test_a_path_is_cut_down_to_its_name(message, shown):
    assert browser_message(StoreError(message)) == shown


def test_a_long_message_takes_no_long_time():
    for text in ("/a " * 100_000, "/a" * 100_000, "/" * 100_000, "/x" + "a " * 100_000, " /x" * 100_000):
        without_paths(text)


def test_removed_paths_are_in_the_log(caplog):
    browser_message(StoreError("/srv/data/rankloop.db: locked"))
    assert "/srv/data/rankloop.db: locked" in caplog.text
