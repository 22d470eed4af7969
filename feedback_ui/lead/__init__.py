"""The annotation lead's room: quality, exclusions, prompts, comparisons, guidelines, settings, accounts, audit.

One file a section. Each has `open` for what is shown when somebody comes to it, and begins every handler at the gate.
"""

from feedback_ui.lead.page import LeadPage, follow_links

__all__ = ["LeadPage", "follow_links"]
