"""Error messages in a browser name no folder of the server."""

import pytest

from feedback_ui.shared.errors import IN_THE_LOG, browser_message, without_commands, without_paths
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
        ("data=/srv/data is no folder", "data=data is no folder"),
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


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("There is no import 5 in /srv/d.sqlite: see `rankloop import --list`.", f"There is no import 5 in d.sqlite. {IN_THE_LOG}"),
        (
            "/tmp/gradio/ab12/a.csv gave more than 1 MiB: import it with a larger --max-unpacked-mib. Nothing was imported.",
            f"a.csv gave more than 1 MiB: Nothing was imported. {IN_THE_LOG}",
        ),
        ("Undo that one first: rankloop import --undo 3 --data /srv/data", f"Undo that one first. {IN_THE_LOG}"),
        ("Take 2 steps -- or 3: a well-known rule", "Take 2 steps -- or 3: a well-known rule"),
        ("rankloop has no free port: close another program", "rankloop has no free port: close another program"),
        ("--only-this", IN_THE_LOG),
        ("Fetch it with `git lfs pull`. Nothing was imported.", f"Nothing was imported. {IN_THE_LOG}"),
        ("The field `chosen` is empty: make it longer", "The field `chosen` is empty: make it longer"),
    ],
)
def test_a_shell_command_is_left_out_and_in_the_log(message, shown, caplog):
    assert browser_message(StoreError(message)) == shown
    assert (message in caplog.text) == (message != shown)


def test_an_option_that_is_a_field_of_the_page_is_named_as_there():
    error = StoreError("x.csv is not UTF-8: name another encoding with --encoding. Nothing was imported.")
    shown = browser_message(error, lambda text: text.replace("--encoding", "“Encoding”"))
    assert shown == "x.csv is not UTF-8: name another encoding with “Encoding”. Nothing was imported."


def test_a_long_message_takes_no_long_time():
    for text in ("/a " * 100_000, "/a" * 100_000, "/" * 100_000, "/x" + "a " * 100_000, " /x" * 100_000):
        without_commands(without_paths(text))
    without_commands("`" * 100_000 + "rankloop a " * 100_000)


def test_removed_paths_are_in_the_log(caplog):
    browser_message(StoreError("/srv/data/rankloop.db: locked"))
    assert "/srv/data/rankloop.db: locked" in caplog.text
