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
