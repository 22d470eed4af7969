"""The Lead page: quality, exclusions, prompts, comparisons, guidelines, settings, accounts, audit.

Each section has a module of its own, with `open` for the handler that shows it. Every handler first checks its request with `Auth`.
"""

from feedback_ui.lead.page import LeadPage

__all__ = ["LeadPage"]
