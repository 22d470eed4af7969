import json
from pathlib import Path

import jinja2
import numpy as np
import openvino
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
request = openvino.Core().compile_model("openvino_model.xml", "CPU").create_infer_request()
ends = json.loads(Path("generation_config.json").read_text())["eos_token_id"]
template = jinja2.Environment().from_string(Path("chat_template.jinja").read_text())
prompt = template.render(messages=[{"role": "user", "content": "Name three birds."}], add_generation_prompt=True)
ids, answer, position = tokenizer.encode(prompt, add_special_tokens=False).ids, [], 0
names = {given.get_any_name() for given in request.model_inputs}
while len(answer) < 40 and not (answer and answer[-1] in np.atleast_1d(ends)):
    inputs = {"input_ids": np.array([ids]), "position_ids": np.arange(position, position + len(ids))[None]}
    inputs |= {"beam_idx": np.zeros(1, np.int32), "attention_mask": np.ones((1, position + len(ids)), np.int64)}
    request.infer({name: values for name, values in inputs.items() if name in names})
    position, ids = position + len(ids), [int(request.get_tensor("logits").data[0, -1].argmax())]
    answer += ids
print(tokenizer.decode(answer))
