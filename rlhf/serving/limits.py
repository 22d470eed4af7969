"""How much one request may ask of the policy server. The Demo page shows and keeps the same limits. No torch here."""

MAX_PROMPT_TOKENS = 4096
"""Tokens of a conversation that is answered; the model's context may allow fewer."""

MAX_MESSAGE_CHARS = 20_000
"""Characters of one message."""

MAX_CONVERSATION_CHARS = 40_000
"""Characters of all messages together, looked at before anything is tokenised."""

MAX_MESSAGES = 64
"""Messages of one conversation."""

MAX_ANSWER_TOKENS = 1024
"""Tokens of an answer."""

MAX_DEMO_CHARS = 8_000
"""Characters of a prompt on the Demo page."""

MAX_DEMO_VERSIONS = 4
"""Policy versions that answer one prompt of the Demo page beside each other."""

MAX_DEMO_TURNS = 16
"""Prompts of one conversation on the Demo page."""

MAX_DEMO_LINK_CHARS = 12_000
"""Characters of a link to a conversation on the Demo page."""

MAX_CHOICES = 16
"""Answers of one request: `n`, times the prompts of a completion request."""

MAX_STOPS = 4
"""Texts that end an answer."""

MAX_STOP_CHARS = 200
"""Characters of such a text."""

MAX_STOP_TOKENS = 16
"""Token ids that end an answer, beside the model's own."""

MAX_TOP_LOGPROBS = 20
"""The likeliest tokens that are listed with each token's log-probability."""

MAX_LOGIT_BIASES = 300
"""Tokens whose logits a request changes."""

MAX_PARTS = 64
"""Parts of one message's content."""

MAX_TOOL_CALLS = 16
"""Calls in one message of an earlier answer."""
