"""How much one request may ask of the policy server. The Demo page shows and keeps the same limits. No torch here."""

LONGEST_PROMPT = 4096
"""Tokens of a conversation that is answered; the model's context may allow fewer."""

LONGEST_MESSAGE = 20_000
"""Characters of one message."""

LONGEST_CONVERSATION = 40_000
"""Characters of all messages together, looked at before anything is tokenised."""

MOST_MESSAGES = 64

LONGEST_ANSWER = 1024
"""Tokens of an answer."""

LONGEST_DEMO = 8_000
"""Characters of a prompt on the Demo page."""

MOST_DEMO_VERSIONS = 4
"""Policy versions that answer one prompt of the Demo page beside each other."""

MOST_DEMO_TURNS = 16
"""Prompts of one conversation on the Demo page."""

LONGEST_DEMO_LINK = 12_000
"""Characters of a link to a conversation on the Demo page."""

MOST_CHOICES = 16
"""Answers of one request: `n`, times the prompts of a completion request."""

MOST_STOPS = 4
"""Texts that end an answer."""

LONGEST_STOP = 200
"""Characters of such a text."""

MOST_TOP_LOGPROBS = 20
"""The likeliest tokens that are listed with each token's log-probability."""

MOST_BIASES = 300
"""Tokens whose logits a request changes."""

MOST_PARTS = 64
"""Parts of one message's content."""

MOST_TOOL_CALLS = 16
"""Calls in one message of an earlier answer."""
