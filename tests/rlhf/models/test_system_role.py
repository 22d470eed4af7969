"""Chat templates without a system role: a system message is folded into the user's turn, or its prompt is refused with the reason."""

import pytest
import tiny

from rlhf.config import PRESETS
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.chat_template import ChatTemplateError
from rlhf.models.lengths import NothingFits, fitting_data
from rlhf.runs.results import TemplateReport
from storage.core.records import Prompt
from storage.project.settings import NO_SYSTEM_ROLE

REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + tiny.TEMPLATE
DROPS = tiny.TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
REFUSES_X = "{% if 'x' in messages[-1]['content'] %}{{ raise_exception('no x') }}{% endif %}" + tiny.TEMPLATE

SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fruit"}]
USER = [{"role": "user", "content": "Name a tree"}]


def backbone(template):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return Backbone(tiny.model(len(tokenizer)), tokenizer)


def test_a_template_with_a_system_role_keeps_it():
    tried = backbone(tiny.TEMPLATE)
    assert tried.has_system_role
    assert tried.tokenizer.decode(tried.encode(SYSTEM)) == "<|system|>Be brief.<|end|><|user|>Name a fruit<|end|><|assistant|>"


@pytest.mark.parametrize("template", [REFUSES, DROPS])
def test_without_one_the_message_is_folded_into_the_first_user_turn(template):
    tried = backbone(template)
    assert not tried.has_system_role
    assert tried.tokenizer.decode(tried.encode(SYSTEM)) == "<|user|>Be brief.\n\nName a fruit<|end|><|assistant|>"
    several = [*SYSTEM, {"role": "assistant", "content": "Pear"}, {"role": "user", "content": "Another"}]
    assert tried.tokenizer.decode(tried.encode(several)) == (
        "<|user|>Be brief.\n\nName a fruit<|end|><|assistant|>Pear<|end|><|user|>Another<|end|><|assistant|>"
    )
    assert tried.tokenizer.decode(tried.encode(USER)) == "<|user|>Name a tree<|end|><|assistant|>"


@pytest.mark.parametrize("template", [REFUSES, DROPS])
def test_where_nothing_is_folded_the_prompt_is_refused_with_the_reason(template):
    tried = backbone(template)
    with pytest.raises(ChatTemplateError, match=NO_SYSTEM_ROLE):
        tried.encode(SYSTEM, fold_system=False)
    tried.fold_system = False
    with pytest.raises(ChatTemplateError, match=NO_SYSTEM_ROLE):
        tried.encode(SYSTEM)
    assert tried.encode(SYSTEM, fold_system=True) and tried.encode(USER)


def pair(number, messages):
    return PreferencePair(tuple(messages), "yes", "no", 1.0, "train", "human", number)


def test_a_round_leaves_out_what_the_template_refuses_and_names_it():
    tried = backbone(REFUSES_X)
    odd = [{"role": "user", "content": "x?"}]
    given = [Prompt(1, tuple(USER), "k", "train"), Prompt(2, tuple(odd), "k", "train")], [Prompt(3, tuple(odd), "k", "heldout")]
    left = fitting_data(tried, PRESETS["tiny"], [pair(7, USER), pair(8, odd)], [], *given)
    assert [p.judgment_id for p in left.snapshot] == [7] and [p.id for p in (*left.train, *left.heldout)] == [1]
    assert left.template == TemplateReport(reasons=["no x"], judgments=[8], prompts=[2, 3])
    assert left.template.in_words() == "pairs of 1 judgments left out (8), 2 prompts left out (2, 3): no x"
    with pytest.raises(NothingFits, match=r"refuses all of 1 preference pairs on training prompts \(no x\)"):
        fitting_data(tried, PRESETS["tiny"], [pair(8, odd)], [], *given)


def test_a_round_says_how_many_system_messages_it_folded():
    left = fitting_data(backbone(REFUSES), PRESETS["tiny"], [pair(7, SYSTEM), pair(8, SYSTEM), pair(9, USER)], [], [], [])
    assert (len(left.snapshot), left.template) == (3, TemplateReport(folded=1))
