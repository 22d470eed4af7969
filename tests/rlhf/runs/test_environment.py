"""The environment of the engine's processes."""

from rlhf.runs.environment import engine_environment


def test_large_blocks_are_kept_and_the_users_own_settings_win(monkeypatch):
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    monkeypatch.setenv("SOMETHING_ELSE", "x")
    found = engine_environment()
    # 4 GiB in bytes.
    assert found["MALLOC_MMAP_THRESHOLD_"] == "4294967296"
    assert found["MALLOC_TRIM_THRESHOLD_"] == "1000" and found["SOMETHING_ELSE"] == "x"
