"""The table of accounts."""

from lead_page import EN

from feedback_ui.lead import accounts_view
from storage.people import accounts


def test_an_account_shows_its_roles_in_their_usual_order_and_its_state(store):
    accounts.create(store, "Lea", "long enough", ["researcher", "lead"])
    accounts.create(store, "<b>Ann</b>", "long enough", ["annotator"])
    accounts.disable(store, accounts.named(store, "<b>Ann</b>").id)
    rows = accounts_view.account_list(EN, accounts.all_accounts(store), acts=False).split("<tr>")[2:]
    (lea,) = (row for row in rows if "Lea" in row)
    (ann,) = (row for row in rows if "&lt;b&gt;Ann" in row)
    assert "lead, researcher" in lea and "in use" in lea
    assert "disabled" in ann and "<button" not in ann
