import json
from pathlib import Path

import jinja2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tokenizers import Tokenizer

tokenizer, interpreter = Tokenizer.from_file("tokenizer.json"), Interpreter(model_path="model.tflite")
ends = json.loads(Path("generation_config.json").read_text())["eos_token_id"]
template = jinja2.Environment().from_string(Path("chat_template.jinja").read_text())
prompt = template.render(messages=[{"role": "user", "content": "Name three birds."}], add_generation_prompt=True)
ids, answer = tokenizer.encode(prompt, add_special_tokens=False).ids, []
decode = interpreter.get_signature_runner("decode")  # "prefill" reads 32 tokens at once
shapes = {name: given["shape"] for name, given in decode.get_input_details().items()}
cache = {f"args_{i}": np.zeros(shapes[f"args_{i}"], np.float32) for i in range(3, len(shapes))}
for position in range(len(ids) + 40):
    token = ids[position] if position < len(ids) else answer[-1]
    if position >= len(ids) and token in np.atleast_1d(ends):
        break
    # The places of the cache that are filled, and the token itself.
    mask = np.where(np.arange(shapes["args_2"][3]) < position, 0, -1e9).astype(np.float32)
    mask[-1] = 0
    inputs = {"args_0": np.array([[token]], np.int32), "args_1": np.array([[position]], np.int32), "args_2": mask[None, None, None]}
    found = decode(**inputs, **cache)
    for at, kept in enumerate(cache.values(), 1):
        kept[:, :, position] = found[f"output_{at}"][:, :, 0]
    if position >= len(ids) - 1:
        answer.append(int(found["output_0"][0, 0].argmax()))
print(tokenizer.decode(answer))
