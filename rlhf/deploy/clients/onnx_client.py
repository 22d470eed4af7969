import json
from pathlib import Path

import jinja2
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer, session = Tokenizer.from_file("tokenizer.json"), onnxruntime.InferenceSession("model.onnx")
ends = json.loads(Path("generation_config.json").read_text())["eos_token_id"]
template = jinja2.Environment().from_string(Path("chat_template.jinja").read_text())
prompt = template.render(messages=[{"role": "user", "content": "Name three birds."}], add_generation_prompt=True)
ids, answer, position = tokenizer.encode(prompt, add_special_tokens=False).ids, [], 0
held = [given for given in session.get_inputs() if "past_key_values" in given.name]
cache = [np.zeros((1, int(given.shape[1]), 0, int(given.shape[3])), np.float32) for given in held]
while len(answer) < 40 and not (answer and answer[-1] in np.atleast_1d(ends)):
    inputs = {"input_ids": np.array([ids]), "position_ids": np.arange(position, position + len(ids))[None]}
    logits, *cache = session.run(None, inputs | {given.name: past for given, past in zip(held, cache, strict=True)})
    position, ids = position + len(ids), [int(logits[0, -1].argmax())]
    answer += ids
print(tokenizer.decode(answer))
