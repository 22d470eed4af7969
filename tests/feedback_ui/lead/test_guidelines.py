"""Guidelines are published as versions."""

from lead_page import HERE, pressed

from storage.project import guidelines


def test_guidelines_are_published_as_versions(store, part, people):
    section = part.guidelines
    assert "No guidelines yet" in section.open(HERE)[section.versions]
    assert "empty" in section.publish("  ", HERE)[section.message] and guidelines.current(store) is None
    section.publish("# First", HERE)
    shown = section.publish("# Second <script>", HERE)
    assert "Published" in shown[section.message]
    assert guidelines.current(store).text == "# Second <script>" and guidelines.current(store).by_id == people.local.id
    assert shown[section.versions].count("<tr>") == 3 and "on display" in shown[section.versions]
    assert "published already" in section.publish("# Second <script>", HERE)[section.message]
    assert len(guidelines.versions(store)) == 2
    old = section.view(pressed("view", guidelines.versions(store)[1].id), HERE)
    assert "Version 1" in old and "<h1>First</h1>" in old
    preview = section.show_preview("a **b** <img src=x>", HERE)
    assert "<strong>b</strong>" in preview and "<img" not in preview and "&lt;img" in preview
    assert "What you write" in section.show_preview("", HERE)


def test_a_load_says_what_was_in_the_editor_and_what_is_to_be(store, part):
    section = part.guidelines
    assert section.load("", HERE) == {section.sent: "", section.loaded: ""}
    guidelines.publish(store, "Old.", None)
    guidelines.publish(store, "New.", None)
    assert section.load("", HERE) == {section.sent: "", section.loaded: "New."}
    assert section.load("Old.", HERE)[section.loaded] == "New."
    assert section.load("My draft", HERE) == {section.sent: "My draft", section.loaded: "My draft"}
