"""The preference store: SQLite tables, the records they hold, and the formats they exchange.

Knows nothing of Gradio or torch.
"""
