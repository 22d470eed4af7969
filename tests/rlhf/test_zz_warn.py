import warnings, types, sys
import pytest
@pytest.mark.parametrize("name", ["rlhf.probe", "rlhf", "launch", "storage.x.y", "launchpad", "other", "__main__"])
@pytest.mark.parametrize("cat", ["UserWarning", "DeprecationWarning","ResourceWarning"])
def test_w(name, cat):
    m = types.ModuleType(name); m.__file__="/x/y.py"
    exec(f"import warnings\ndef f(): warnings.warn('boo', {cat})", m.__dict__)
    m.f()
