import os

from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

# The base is named by the adapter; BASE_MODEL names a folder with it where the hub cannot be reached.
base = os.environ.get("BASE_MODEL") or PeftConfig.from_pretrained(".").base_model_name_or_path
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), ".")
messages = [{"role": "user", "content": "Name three birds."}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**prompt, do_sample=False, max_new_tokens=40)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
