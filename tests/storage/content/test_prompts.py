import pytest

from storage.content import prompts
from storage.content.prompts import NewPrompt
from storage.core.database import StoreError

DIGEST_OF_HI = "8b1450277179b15b70831cee0e0ec563f04eb6c717d27070114931cba4b59d4e"


def user(text):
    return ({"role": "user", "content": text},)


def test_digest_is_sha256_of_roles_and_contents():
    # printf '%s' '[["user","Hi"]]' | sha256sum
    assert prompts.digest(user("Hi")) == DIGEST_OF_HI
    assert prompts.digest(({"content": "Hi", "role": "user", "name": "x"},)) == DIGEST_OF_HI
    assert prompts.digest(user("Hi ")) != DIGEST_OF_HI


def test_adds_once_and_counts_the_new_ones(store):
    assert prompts.add(store, [NewPrompt(user("a")), NewPrompt(user("b")), NewPrompt(user("a"))], source="file") == 2
    assert prompts.add(store, [NewPrompt(user("b")), NewPrompt(user("c"))], source="file") == 1
    assert [(prompt.id, prompt.text, prompt.kind) for prompt in prompts.of_split(store)] == [
        (1, "a", "imported"),
        (2, "b", "imported"),
        (3, "c", "imported"),
    ]


def test_adds_all_or_none(store):
    with pytest.raises(StoreError, match="the last message must be the user's.*none was added"):
        prompts.add(store, [NewPrompt(user("fine")), NewPrompt(({"role": "assistant", "content": "Hi"},))], source="file")
    with pytest.raises(StoreError, match="'test'.*use train or heldout"):
        prompts.add(store, [NewPrompt(user("fine")), NewPrompt(user("other"), split="test")], source="file")
    assert prompts.of_split(store) == []


def test_keeps_the_split_it_is_given(store):
    prompts.add(store, [NewPrompt(user("a"), split="heldout"), NewPrompt(user("b"), split="train")], source="file")
    assert [prompt.text for prompt in prompts.of_split(store, "heldout")] == ["a"]
    assert [prompt.text for prompt in prompts.of_split(store, "train")] == ["b"]


def test_split_comes_from_the_digest():
    # 0xc is 12 and 0x10 is 16; every sixth number is held out.
    assert prompts.split_of("0000000c" + "f" * 56) == "heldout"
    assert prompts.split_of("00000010" + "f" * 56) == "train"


def test_about_one_prompt_in_six_is_held_out_whatever_else_is_there(store, tmp_path):
    texts = [f"Prompt {n}" for n in range(1200)]
    prompts.add(store, [NewPrompt(user(text)) for text in texts], source="file")
    heldout = {prompt.text for prompt in prompts.of_split(store, "heldout")}
    # 200 expected, standard deviation 13.
    assert 150 < len(heldout) < 250

    other = type(store)(tmp_path / "other.db")
    prompts.add(other, [NewPrompt(user(text)) for text in reversed(texts[:300])], source="file")
    assert {prompt.text for prompt in prompts.of_split(other, "heldout")} == heldout & set(texts[:300])
    other.close()


def test_starter_prompts_load_once(store):
    assert prompts.load_starter(store) == 240
    assert prompts.load_starter(store) == 0
    assert len(prompts.of_split(store, "train")) == 200
    assert len(prompts.of_split(store, "heldout")) == 40


def test_get_returns_the_whole_conversation(store):
    messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüß dich 👋"},
    )
    prompts.add(store, [NewPrompt(messages, "chat", "train")], source="file")
    prompt = prompts.get(store, 1)
    assert prompt.messages == messages
    assert prompt.text == "Grüß dich 👋"
    with pytest.raises(StoreError, match="no prompt 7"):
        prompts.get(store, 7)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "at least one message"),
        ("Hi", "must be a list"),
        (["Hi"], "must be an object"),
        ([{"role": "bot", "content": "Hi"}], "role must be one of"),
        ([{"content": "Hi"}], "role must be one of"),
        ([{"role": ["user"], "content": "Hi"}], "role must be one of"),
        ([{"role": "user", "content": 3}], "content must be text"),
        ([{"role": "user", "content": " \n"}], "a message is empty"),
        ([{"role": "user", "content": "\ud83d"}], "surrogate"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "may only come first"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "must be the user's"),
    ],
)
def test_invalid_messages_have_a_reason(messages, reason):
    assert reason in prompts.problem(messages)
