"""What a button in a list tells its handler."""

from types import SimpleNamespace

import pytest

from feedback_ui.shared.listing import chosen
from storage.core.database import StoreError


def test_a_click_names_its_act_and_row():
    assert chosen(SimpleNamespace(_data={"act": "take-out", "row": 3})) == ("take-out", 3)


@pytest.mark.parametrize(
    "sent", [None, "take-out", {}, {"act": "x"}, {"act": 1, "row": 1}, {"act": "x", "row": "1"}, {"act": "x", "row": True}]
)
def test_what_no_button_sends_is_refused(sent):
    with pytest.raises(StoreError, match="no such row"):
        chosen(SimpleNamespace(_data=sent))
