"""Writes a policy version in the formats that people deploy, and checks each export against the policy that was trained.

`export` runs the steps; `formats` says what each format needs; `runtimes` holds the programs that load an export with its own runtime.
"""
