from xllamacpp import CommonParams, Server

# The file holds tokenizer and chat template. `llama-server -m model.gguf` and `ollama create` read it too.
params = CommonParams()
params.model.path, params.n_ctx = "model.gguf", 2048
server = Server(params)
messages = [{"role": "user", "content": "Name three birds."}]
answer = server.handle_chat_completions({"messages": messages, "temperature": 0.0, "max_tokens": 40})
print(answer["choices"][0]["message"]["content"])
