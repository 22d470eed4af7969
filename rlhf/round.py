"""One round, as one page: snapshot -> reward -> policy -> evaluate -> register.

Every stage saves its result in the run's folder and is skipped when that exists, so a run that was killed resumes at that
stage and ends with the same metrics. Each stage is a module of `stages`. Leaves out processes (`worker`, `jobs`) and formulas.
"""

from __future__ import annotations

import logging
import resource
import sys
from dataclasses import replace
from functools import partial

from rlhf import model_files
from rlhf.analysis import model_card
from rlhf.config import AtChance, RoundConfig, check
from rlhf.data import pairs
from rlhf.models.backbone import Backbone
from rlhf.models.lengths import fitting_data
from rlhf.models.ranks import join
from rlhf.ppo.rollout import POLICY, REFERENCE
from rlhf.reward import model as reward_model
from rlhf.runs import at_chance, plan, policy_start, reward_function, typed_json
from rlhf.runs.at_chance import StoppedAtChance
from rlhf.runs.progress import RunProgress
from rlhf.runs.results import Estimate, RoundResult
from rlhf.stages.evaluate import evaluate
from rlhf.stages.policy import tune_by_ppo, tune_by_trl
from rlhf.stages.reward import fit_reward, heldout_accuracy
from rlhf.stages.setup import load_backbone, load_outside, make_scorer
from rlhf.stages.snapshot import answer_before, take_demonstrations, take_prompts, take_snapshot
from storage.content import policies
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import PolicyVersion
from storage.project import rounds, runs

log = logging.getLogger("rankloop.round")


def run_round(
    store: Database,
    folder: DataFolder,
    run_id: str,
    progress: RunProgress,
    reward_named: str | None = None,
    at_chance_named: AtChance | None = None,
    rollouts_key: str = "",
) -> PolicyVersion:
    """Executes one run, from its row in the store to a registered policy version.

    Args:
        reward_named: the reward function that the command line names; a run with a reward function does not start without it.
        at_chance_named: what to do where the reward model cannot be told from a coin, in place of the run's option.
        rollouts_key: API key of the server that samples the rollouts, where the options name one that wants a key.

    Raises:
        RewardFunctionError: the command line and the run's row do not name the same one.
        NotEnoughPairs, NoDemonstrations: before anything is loaded.
        ModelError: the base model is not available, or the reward model from elsewhere cannot be read.
        ConfigError: the model cannot have the adapters, or the policy cannot begin at the version that was current.
        NothingFits: nothing to train on is short enough for it.
        StoppedAtChance: the reward model cannot be told from a coin, and the run is to ask or to stop then.
        RolloutServerError: the server that samples the rollouts does not work, or is not one for this run.
        Cancelled: from `progress`, when someone asked for it; the run can be resumed.
    """
    config = RoundConfig.from_dict(runs.readable(store, run_id).config)
    start = policy_start.of_run(store, config, run_id)
    function = reward_function.load_confirmed(config.reward_function, reward_named)
    run_dir = folder.run(run_id)
    snapshot = take_snapshot(store, run_id, config, run_dir)
    ideal_answers = take_demonstrations(store, config, run_dir)
    train, heldout = take_prompts(store, run_dir)
    train_pairs, heldout_pairs = pairs.of_split(snapshot, "train"), pairs.of_split(snapshot, "heldout")
    costs = plan.stage_costs(
        config,
        n_pairs=len(train_pairs),
        n_heldout_pairs=len(heldout_pairs),
        n_heldout=len(heldout),
        n_demonstrations=len(ideal_answers),
    )
    progress.plan({stage: sum(parts.values()) for stage, parts in costs.items()})
    ranks = join(config.device)
    # On several hosts the launcher says how many there are.
    check(replace(config, launcher="none" if ranks.alone else "accelerate", processes=ranks.count))
    backbone = load_backbone(config)
    ranks.tell("begin", lambda: {"config": {**config.to_dict(), "dtype": str(backbone.base.dtype).removeprefix("torch.")}})
    require_adapters(backbone, config)
    outside = load_outside(config, backbone)
    if start is not None:
        backbone.load_adapter(REFERENCE, start.folder)
    fitting = fitting_data(backbone, config, snapshot, ideal_answers, train, heldout)
    snapshot, ideal_answers, train, heldout = fitting.snapshot, fitting.demonstrations, fitting.train, fitting.heldout
    for left_out in (fitting.template, fitting.report):
        if left_out:
            log.warning("%s", left_out.in_words())

    before = answer_before(store, run_id, config, backbone, heldout, run_dir, progress)
    model = fit_reward(config, backbone, snapshot, train, run_dir, progress, costs["reward"], outside, ranks)
    begun = (run_dir / "checkpoint").exists() or (run_dir / "tuned").exists()
    if at_chance.matters(config) and not begun and at_chance.is_at_chance(found := heldout_accuracy(backbone, model, snapshot, progress)):
        answer_chance(store, run_id, at_chance_named or config.at_chance, found)
    asked = [p.messages for p in (*train, *heldout)]
    scorer = make_scorer(config, backbone, model, outside, function, asked)
    tune = partial(tune_by_ppo, rollouts_key=rollouts_key) if config.method == "ppo" else tune_by_trl
    outcome = tune(
        store, config, backbone, scorer, snapshot, train, ideal_answers, None if start is None else start.folder, run_dir, progress, ranks
    )
    ranks.tell("end")
    measured = evaluate(store, run_id, config, backbone, model, scorer, snapshot, heldout, before, progress, costs["evaluate"])
    version = register(store, folder, run_id, config, backbone, progress)

    result = replace(
        measured,
        started_from=None if start is None else start.version.name,
        stopped_by_kl=outcome.stopped_by_kl,
        best_checkpoint=outcome.best_checkpoint,
        lengths=fitting.report or None,
        template=fitting.template or None,
        policy_version=version.name,
        minutes=sum(progress.seconds().values()) / 60,
        peak_memory_gib=peak_memory_gib(),
    )
    model_card.write(store, version, result)
    end(store, run_id, version, result)
    return version


def answer_chance(store: Database, run_id: str, option: AtChance, accuracy: Estimate | None) -> None:
    """Warns of a reward model that cannot be told from a coin, or stops the round.

    Raises:
        StoppedAtChance: the round is to ask, or to stop.
    """
    if accuracy is None:
        return
    act = at_chance.act(option, rounds.of_run(store, run_id))
    if act != "continue":
        raise StoppedAtChance(accuracy, asks=act == "ask")
    log.warning("the policy is trained all the same, though %s", at_chance.in_words(accuracy))


def end(store: Database, run_id: str, version: PolicyVersion, result: RoundResult) -> None:
    """Writes the result and what the guards found, at once: a version that failed is rejected before anybody is asked about it."""
    failed = [check.in_words() for check in result.guards or () if not check.passed]
    made = None
    with store.atomic():
        runs.finish(store, run_id, "done", result=result.to_json())
        if (found := rounds.of_run(store, run_id)) is None:
            return
        rounds.set_guards(store, found.id, "failed" if failed else "passed")
        if failed and found.decision is None:
            evidence = {"guards": [typed_json.to_json(check) for check in result.guards or ()]}
            reason = f"It did not pass its guards: {'; '.join(failed)}."
            made = rounds.decide(store, version, "rejected", decided_by="guards", reason=reason, evidence=evidence)
    if made is not None:
        model_card.write_decided(store, made)
    for reason in failed:
        log.warning("%s is rejected: %s", version.name, reason)


def require_adapters(backbone: Backbone, config: RoundConfig) -> None:
    """Refuses a round whose model cannot have its adapters, before anything is computed. Raises ConfigError."""
    backbone.require_adapter("adapter-kind", config.adapter)
    if config.reward.epochs:
        depth = reward_model.depth_of(backbone, config.reward)
        backbone.require_adapter("reward-adapter-kind", config.reward.adapter, depth=depth)


def register(
    store: Database, folder: DataFolder, run_id: str, config: RoundConfig, backbone: Backbone, progress: RunProgress
) -> PolicyVersion:
    """Saves the tuned adapter where the policy server finds it, and registers it as a policy version."""
    progress.stage("register")
    target = folder.run(run_id) / "policy"
    backbone.save_adapter(POLICY, target)
    base = policies.ensure_base(store, config.model, name=model_files.display_name(config.model))
    version = policies.register_tuned(
        store, name=f"{base.name}-{run_id}", base_model=config.model, adapter_path=str(target.relative_to(folder.root)), run_id=run_id
    )
    progress.close_stage()
    return version


def peak_memory_gib() -> float:
    """The most memory this process has held, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
