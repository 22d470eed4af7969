"""Links to the Demo page, and who may follow them."""

from types import SimpleNamespace

import pytest
from called_pages import ENGLISH, page

from feedback_ui.server.auth import AccessRefused
from storage.people import accounts

PASSWORD = "correct horse battery staple"


@pytest.fixture
def demo(app):
    return page(app, "DemoPage")


@pytest.mark.parametrize("section", ["trying", "gallery", "versions"])
def test_a_link_opens_its_section(demo, section):
    assert demo.enter(section, ENGLISH).selected == section


@pytest.mark.parametrize("section", ["", None, "elsewhere"])
def test_without_a_link_the_open_section_stays(demo, section):
    assert demo.enter(section, ENGLISH) == {"__type__": "update"}


def test_annotators_open_the_first_section_alone(demo, store):
    accounts.create(store, "lead", PASSWORD, ["lead"])
    accounts.create(store, "ann", PASSWORD, ["annotator"])
    token = accounts.sign_in(store, "ann", PASSWORD)
    ann = SimpleNamespace(headers={}, cookies={demo.auth.cookie: token})
    assert demo.enter("trying", ann).selected == "trying"
    for section in ("gallery", "versions"):
        with pytest.raises(AccessRefused):
            demo.enter(section, ann)
    with pytest.raises(AccessRefused):
        demo.gallery.show("r1", "asked", True, ann)
    with pytest.raises(AccessRefused):
        demo.versions.show("Small", ann)
