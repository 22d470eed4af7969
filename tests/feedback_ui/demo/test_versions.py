"""The handlers of the versions' cards."""

import pytest
from called_pages import ENGLISH, page

from storage.content import policies


@pytest.fixture
def versions(app, store):
    policies.ensure_base(store, "default", name="Small")
    policies.ensure_external(store, "gpt <b>")
    return page(app, "DemoPage").versions


def test_the_newest_version_is_shown_and_a_link_names_another(versions):
    shown = versions.open("", None, ENGLISH)
    assert shown[versions.version].value == "gpt <b>" and "<h2>gpt &lt;b&gt;</h2>" in shown[versions.card]
    shown = versions.open("Small", "gpt <b>", ENGLISH)
    assert shown[versions.version].value == "Small" and "licence: apache-2.0" in shown[versions.card]


def test_a_link_to_a_version_that_is_not_here_says_so(versions):
    shown = versions.open("<i>", "Small", ENGLISH)
    assert "no version &lt;i&gt;" in shown[versions.card] and shown[versions.version].value == "Small"


def test_a_store_without_versions_says_when_there_will_be_one(app):
    versions = page(app, "DemoPage").versions
    assert "No version exists yet" in versions.open("", None, ENGLISH)[versions.card]
    assert "No version exists yet" in versions.show("x", ENGLISH)
