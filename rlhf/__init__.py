"""Learning from judgments: preference pairs, a reward model, PPO, evaluation, and the processes that run them.

Two halves. The face (`config`, `jobs`, `client`) imports no torch, so a web process may use it; the engine is
everything else. Knows nothing of Gradio.
"""

import os

# transformers, trl and the hub client read this once, when they are imported: nothing here phones home.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
