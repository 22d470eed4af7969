from llama_cpp import Llama

# The file holds tokenizer and chat template. `llama-server -m model.gguf` and `ollama create` read it too.
llama = Llama("model.gguf", n_ctx=2048, verbose=False)
messages = [{"role": "user", "content": "Name three birds."}]
answer = llama.create_chat_completion(messages, temperature=0.0, max_tokens=40)
print(answer["choices"][0]["message"]["content"])
