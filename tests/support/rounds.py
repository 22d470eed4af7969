"""Rounds in the test's own process, and their figures."""

from rlhf.worker import work
from storage.project import runs


def run(jobs, run_id, on_change=None, reward=None):
    """Runs the worker in this process, and returns the run's row."""
    work(jobs.store, jobs.folder, run_id, on_change, reward=reward)
    return runs.get(jobs.store, run_id)


def done(jobs, config, reward=None):
    """A new run with this config, after it ended."""
    return run(jobs, jobs.create(config).id, reward=reward)


def metric(jobs, run, name):
    """The run's values of one metric, in the order of the steps."""
    return [m.value for m in runs.metrics(jobs.store, run.id) if m.name == name]
