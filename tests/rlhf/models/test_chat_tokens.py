"""A conversation as token ids, and an answer's ids as text; ends are in test_eos_tokens.py, system messages in test_system_role.py."""

from learning import user


def test_a_conversation_ends_where_the_assistant_begins(backbone):
    ids = backbone.encode(({"role": "system", "content": "S"}, *user("Hi")))
    assert backbone.tokenizer.decode(ids) == "<|system|>S<|end|><|user|>Hi<|end|><|assistant|>"
    assert backbone.decode([*backbone.encode_answer(" caf\u00e9 "), backbone.eos_id]) == "caf\u00e9"
