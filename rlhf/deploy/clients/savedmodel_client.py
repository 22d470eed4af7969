import json
from pathlib import Path

import jinja2
import numpy as np
import tensorflow as tf
from tokenizers import Tokenizer

tokenizer, model = Tokenizer.from_file("tokenizer.json"), tf.saved_model.load("model")
ends = json.loads(Path("generation_config.json").read_text())["eos_token_id"]
template = jinja2.Environment().from_string(Path("chat_template.jinja").read_text())
prompt = template.render(messages=[{"role": "user", "content": "Name three birds."}], add_generation_prompt=True)
ids, answer = tokenizer.encode(prompt, add_special_tokens=False).ids, []
while len(answer) < 40 and not (answer and answer[-1] in np.atleast_1d(ends)):
    tokens = tf.constant([ids + answer], tf.int32)
    logits = model.serve({"token_ids": tokens, "padding_mask": tf.ones_like(tokens)})
    answer.append(int(tf.argmax(logits[0, -1])))
print(tokenizer.decode(answer))
