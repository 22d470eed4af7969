"""The stages of a round, a module each. `rlhf.round` calls them in their order."""
