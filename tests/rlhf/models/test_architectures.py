"""Each architecture of the table in docs/reference/models.md does what its row says."""

import architectures
import model_table
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_an_architecture_does_what_its_row_says(name):
    assert model_table.row(name) in model_table.PAGE.read_text().splitlines()


def test_the_page_has_a_row_for_each_architecture_and_nothing_else():
    rows = [line for line in model_table.PAGE.read_text().splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows] == list(architectures.ARCHITECTURES) and len(rows) >= 20
    assert model_table.PAGE.read_text() == model_table.page(rows)


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt2"])
def test_a_mixture_of_experts_and_learned_positions_pass_every_stage(name):
    assert [model_table._tried(stage, name) for _, stage in model_table.STAGES] == ["ok"] * 5
