"""The verbs of the command line, each a function beside the options it reads. They say what was done; doing it is elsewhere."""
