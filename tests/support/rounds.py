"""Rounds, in the test's own process or in a worker, and their figures."""

from waiting import until

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


def steps(store, run_id):
    """The last step of PPO whose metrics are there."""
    return max((m.step for m in runs.metrics(store, run_id) if m.name == "objective/kl"), default=0)


def ended(store, run_id, seconds=300):
    """The row of a run that a worker has, once it has ended."""
    return until(lambda: (r := runs.get(store, run_id)).status not in ("queued", "running") and r, seconds)
