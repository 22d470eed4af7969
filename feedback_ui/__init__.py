"""The web pages. A page a file; presenters beside them know nothing of Gradio, and nothing here knows torch."""
