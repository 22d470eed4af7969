"""The policy server's options for trainers, as its process gets them."""

import argparse
from pathlib import Path

from rlhf.serving import lora_options


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    lora_options.add_options(parser)
    return parser.parse_args(arguments)


def test_the_options_are_off_and_reach_the_process_with_an_absolute_folder():
    plain, full = parsed(), parsed("--lora-folder", "adapters", "--logprobs-mode", "processed_logprobs")
    assert (plain.lora_folder, plain.logprobs_mode) == (None, "raw_logprobs")
    again = parsed(*lora_options.as_arguments(full))
    assert (again.lora_folder, again.logprobs_mode) == (Path.cwd() / "adapters", "processed_logprobs")
    assert parsed(*lora_options.as_arguments(plain)) == plain
