from storage.content import prompts
from storage.content.prompts import NewPrompt
from storage.exchange import encodings, files, prompts_jsonl
from storage.exchange.rows import BadRow, check


def user(text):
    return ({"role": "user", "content": text},)


def read(tmp_path, content):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found, errors = [], []
    for line, record in files.records(path):
        try:
            if isinstance(record, BadRow):
                raise record
            (prompt,) = prompts_jsonl.read(record)
            check(prompt)
            found.append(prompt)
        except BadRow as error:
            errors.append((line, str(error)))
    return found, errors


def test_reads_both_shapes(tmp_path, store):
    found, errors = read(
        tmp_path,
        '{"prompt": "Why?", "kind": "explain", "split": "heldout", "extra": 1}\r\n'
        "\n   \n"
        '{"messages": [{"role": "system", "content": "Be brief.", "x": 1}, {"role": "user", "content": "Hi 👋"}]}',
    )
    assert errors == []
    assert found == [
        NewPrompt(user("Why?"), "explain", "heldout"),
        NewPrompt(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi 👋"}), "imported", None),
    ]
    assert prompts.add(store, found, source="prompts.jsonl") == 2


def test_bad_rows_are_told_by_line_and_good_ones_kept(tmp_path, store):
    rows = [
        b'{"prompt": "good"}',
        b"not json",
        b'["prompt"]',
        b'{"prompt": "  "}',
        b'{"messages": [{"role": "narrator", "content": "Hi"}]}',
        b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}',
        b'{"prompt": "x", "split": "test"}',
        b'{"prompt": "caf\xe9"}',
        b"",
        b'{"prompt": 3}',
        b'{"text": "x"}',
        b'{"prompt": "x", "messages": []}',
        b'{"messages": []}',
        b'{"prompt": "x", "kind": 3}',
        b'{"prompt": "x", "split": ["train"]}',
        b'{"prompt": "half \\ud83d"}',
        b"[" * 100_000,
        b'{"prompt": ' + b"1" * 5_000 + b"}",
        b'{"prompt": "good too"}',
    ]
    found, errors = read(tmp_path, b"\n".join(rows))
    assert [prompt.messages for prompt in found] == [user("good"), user("x"), user("x"), user("good too")]
    assert errors == [
        (2, "not JSON"),
        (3, "not a JSON object"),
        (4, "a message is empty"),
        (5, "role must be one of system, user, assistant, not 'narrator'"),
        (6, "the last message must be the user's"),
        (7, "split must be train or heldout, not 'test'"),
        (8, encodings.NOT_UTF8),
        (10, "prompt must be text; use messages for a conversation"),
        (13, "messages must be a list with at least one message"),
        (14, "kind must be a word"),
        (15, "split must be train or heldout, not ['train']"),
        (16, "the text has half a surrogate pair, which UTF-8 cannot hold"),
        (17, "not JSON: nested too deeply, more than 500 lists and objects"),
        (18, "not JSON"),
    ]
    assert prompts.add(store, found, source="prompts.jsonl") == 3


def test_a_byte_order_mark_is_no_error(tmp_path):
    found, errors = read(tmp_path, b'\xef\xbb\xbf{"prompt": "Why?"}\n')
    assert (found, errors) == ([NewPrompt(user("Why?"))], [])


def test_an_empty_file_has_none(tmp_path):
    assert read(tmp_path, "") == ([], [])


def test_a_prompt_of_messages_and_a_category_that_is_no_word(tmp_path):
    rows = '{"prompt": [{"role": "user", "content": "Why?"}], "ability": "math"}\n{"prompt": "Who?", "category": ["a", "b"]}\n'
    assert read(tmp_path, rows) == ([NewPrompt(user("Why?"), "imported"), NewPrompt(user("Who?"), "imported")], [])
    assert read(tmp_path, '{"prompt": ["Why?", "Who?"]}\n') == ([], [(1, "each of the prompt must be an object with role and content")])
