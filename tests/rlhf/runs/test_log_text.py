"""A worker's log for people: their own lines and tracebacks stay, bars and the warnings of libraries go."""

from rlhf.runs import log_text

RAW = """\
Loading weights:   0%|          | 0/272 [00:00<?, ?it/s]\rLoading weights: 100%|██████████| 272/272 [00:00<00:00, 4119.02it/s]
/venv/lib/python3.11/site-packages/trl/trainer/x.py:12: FutureWarning: `foo` will be removed
  warnings.warn(
[transformers] `torch_dtype` is deprecated! Use `dtype` instead!
Map: 100%|##########| 28/28 [00:00<00:00, 1200.11 examples/s]
W1127 09:07:34.000000 140 torch/utils/cpp.py:10] no compiler
09:07:30 7 measure: with fewer than 20 the interval of the held-out accuracy is too wide to tell much

09:07:34 best_checkpoint: {'step': 5}
Some weights of LlamaForSequenceClassification were not initialized
\x1b[31m09:07:35 the round failed\x1b[0m
Traceback (most recent call last):
  File "x.py", line 3, in run
    warnings.warn("UserWarning: 3%|")
RuntimeError: out of luck
09:07:36 done: tiny-r1
"""


def test_bars_and_framework_warnings_are_left_out_and_tracebacks_are_kept():
    assert log_text.readable(RAW).splitlines() == [
        "09:07:30 7 measure: with fewer than 20 the interval of the held-out accuracy is too wide to tell much",
        "09:07:34 best_checkpoint: {'step': 5}",
        "09:07:35 the round failed",
        "Traceback (most recent call last):",
        '  File "x.py", line 3, in run',
        '    warnings.warn("UserWarning: 3%|")',
        "RuntimeError: out of luck",
        "09:07:36 done: tiny-r1",
    ]


def test_an_ordinary_line_stays_as_it_is():
    assert log_text.readable("line 1\n  indented, 50% of it") == "line 1\n  indented, 50% of it"
