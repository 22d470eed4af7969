"""The web pages. A page a file; presenters beside them know nothing of Gradio, and nothing here knows torch."""

import os

# Gradio reports usage to its makers otherwise, and reads this when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
