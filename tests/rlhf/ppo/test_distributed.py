"""Ranks of one run ask other prompts and draw from other streams."""

from dataclasses import replace

from small_ppo import CONFIG, trainer

import rlhf.ppo.trainer as ppo_module
from rlhf.ppo.distributed import DistributedContext
from rlhf.ppo.trainer import PPO
from rlhf.runs.work import Work


def test_ranks_ask_other_prompts_and_draw_other_streams_and_one_process_is_as_ever(tiny_folder, monkeypatch):
    def at(*place):
        monkeypatch.setattr(ppo_module, "distributed_context", lambda: DistributedContext(*place))
        return trainer(tiny_folder, replace(CONFIG, batch_size=2, minibatch_size=2))

    alone, first, second = at(0, 1), at(0, 2), at(1, 2)
    assert (DistributedContext().key(3, 4), DistributedContext(0, 2).key(3, 4), DistributedContext(1, 2).key(3, 4)) == (
        (3, 4),
        (3, 4),
        (3, 4, 1),
    )
    cut = [*first.batch_indexes(0), *second.batch_indexes(0), *first.batch_indexes(1)]
    assert cut == [i for step in range(3) for i in alone.batch_indexes(step)], "one pass, cut among them"
    # On the same prompts, still other draws.
    monkeypatch.setattr(PPO, "batch_indexes", lambda *_: [0, 1])
    ids = [p.collect(p.value_head, Work()).responses.tolist() for p in (alone, first, second)]
    assert ids[0] == ids[1] != ids[2]
