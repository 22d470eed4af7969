"""The formats that the store exchanges with the world, one module each.

Each reads or writes whole files; nothing here decides what is trained on.
"""
