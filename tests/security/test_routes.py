"""Every route, handler and server function of the app, called by every kind of visitor, over HTTP.

Three tables say by hand who may do what: `ROUTES` for every HTTP route of the mounted app, `HANDLERS` for every event of
the pages, `FUNCTIONS` for every server function of a component. Whoever adds one of these adds a line to its table, or
the first tests here fail and name what is missing. A line says which of the three roles get through; nobody, who is not
signed in, never does. Handlers and functions are named by module and qualified name, as `name_of` makes them.

A handler is called with the values that its page starts with. It counts as let through when it is not refused by the
gate: that it then finds the form empty is fine, what it does is tested elsewhere.
"""

import json
import re

import pytest
from walk import call, functions_of, handlers_of, reach, routes_of, server_call

from feedback_ui.server import access
from feedback_ui.shared.i18n import Translator
from storage.core.records import ACCOUNT_ROLES

A, L, R = "annotator", "lead", "researcher"
ALL = {A, L, R}
LEAD_PAGE = {L, R}
"""Researchers read what leads read; only leads act there."""
EVERYBODY = {"nobody", *ALL}
CLOSED: set[str] = set()
"""A route of Gradio's that no page needs: it is not there for anybody."""

ROUTES = {
    "GET /sign-in": EVERYBODY,
    "POST /sign-in": EVERYBODY,
    "POST /sign-out": ALL,
    "GET /password": ALL,
    "POST /password": ALL,
    # The page and what it is made of.
    "GET /": ALL,
    "GET /config": ALL,
    "GET /theme.css": ALL,
    "GET /favicon.ico": ALL,
    "GET /manifest.json": ALL,
    "GET /robots.txt": ALL,
    "GET /assets/{path:path}": ALL,
    "GET /static/{path:path}": ALL,
    "GET /svelte/{path:path}": ALL,
    "GET /modules/{version}/{name}": ALL,
    "GET /gradio_api/info": ALL,
    "GET /gradio_api/startup-events": ALL,
    # Handlers are called through these; each asks the gate itself.
    "POST /gradio_api/run/{api_name}": ALL,
    "POST /gradio_api/queue/join": ALL,
    "GET /gradio_api/queue/data": ALL,
    "POST /gradio_api/component_server": ALL,
    "POST /gradio_api/component_server/": ALL,
    "POST /gradio_api/cancel": ALL,
    "POST /gradio_api/reset": ALL,
    "GET /gradio_api/heartbeat/{session_hash}": ALL,
    # Prompts come in, and out to who brought them.
    "POST /gradio_api/upload": {L},
    "GET /gradio_api/file={path_or_url:path}": LEAD_PAGE,
    # What a run has made.
    "GET /runs/{run_id}/adapter.zip": {R},
    "GET /runs/{run_id}/metrics.csv": {R},
    # What a lead had exported, for this lead.
    "GET /download/{token}/{name}": {L},
    # Not needed, not there.
    "GET /config/": CLOSED,
    "GET /gradio_api/info/": CLOSED,
    "GET /gradio_api/openapi.json": CLOSED,
    "GET /gradio_api/theme.css": CLOSED,
    "GET /gradio_api/user": CLOSED,
    "GET /gradio_api/user/": CLOSED,
    "GET /gradio_api/login_check": CLOSED,
    "GET /gradio_api/login_check/": CLOSED,
    "GET /gradio_api/token": CLOSED,
    "GET /gradio_api/token/": CLOSED,
    "GET /gradio_api/app_id": CLOSED,
    "GET /gradio_api/app_id/": CLOSED,
    "GET /gradio_api/dev/reload": CLOSED,
    "POST /login": CLOSED,
    "POST /login/": CLOSED,
    "GET /logout": CLOSED,
    "GET /gradio_api/runs": CLOSED,
    "GET /gradio_api/runs/": CLOSED,
    "GET /gradio_api/deep_link": CLOSED,
    "GET /gradio_api/custom_component/{id}/{environment}/{type}/{file_name}": CLOSED,
    "GET /gradio_api/proxy={url_path:path}": CLOSED,
    "GET /gradio_api/file/{path:path}": CLOSED,
    "POST /gradio_api/stream/{event_id}": CLOSED,
    "POST /gradio_api/stream/{event_id}/close": CLOSED,
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8": CLOSED,
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}": CLOSED,
    "GET /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file": CLOSED,
    "POST /gradio_api/reset/": CLOSED,
    "POST /gradio_api/run/{api_name}/": CLOSED,
    "POST /gradio_api/api/{api_name}": CLOSED,
    "POST /gradio_api/api/{api_name}/": CLOSED,
    "POST /gradio_api/call/v2/{api_name}": CLOSED,
    "POST /gradio_api/call/v2/{api_name}/": CLOSED,
    "GET /gradio_api/call/v2/{api_name}/{event_id}": CLOSED,
    "POST /gradio_api/call/{api_name}": CLOSED,
    "POST /gradio_api/call/{api_name}/": CLOSED,
    "GET /gradio_api/call/{api_name}/{event_id}": CLOSED,
    "GET /gradio_api/queue/status": CLOSED,
    "GET /gradio_api/upload_progress": CLOSED,
    "GET /pwa_icon": CLOSED,
    "GET /pwa_icon/{size}": CLOSED,
    "GET /openapi.json": CLOSED,
    "GET /monitoring": CLOSED,
    "GET /monitoring/summary": CLOSED,
    "GET /monitoring/{key}": CLOSED,
    "POST /gradio_api/process_recording": CLOSED,
    "POST /gradio_api/vibe-edit": CLOSED,
    "POST /gradio_api/vibe-edit/": CLOSED,
    "POST /gradio_api/undo-vibe-edit": CLOSED,
    "POST /gradio_api/undo-vibe-edit/": CLOSED,
    "GET /gradio_api/vibe-code": CLOSED,
    "GET /gradio_api/vibe-code/": CLOSED,
    "POST /gradio_api/vibe-code": CLOSED,
    "POST /gradio_api/vibe-code/": CLOSED,
    "POST /gradio_api/vibe-starter-queries": CLOSED,
    "POST /gradio_api/vibe-starter-queries/": CLOSED,
}

HANDLERS = {
    "visitor.visitor_line.show_visitor": ALL,
    "leaderboard.page.LeaderboardPage.open": ALL,
    "leaderboard.page.LeaderboardPage.include": LEAD_PAGE,
    "leaderboard.page.LeaderboardPage.name": {A},
    "demo.page.follow_links.follow": ALL,
    "demo.page.DemoPage.enter": ALL,
    "demo.trying.TryingSection.open": ALL,
    "demo.trying.TryingSection.begin": ALL,
    "demo.trying.TryingSection.answer": ALL,
    "demo.trying.TryingSection.answer_again": ALL,
    "demo.trying.TryingSection.end": ALL,
    "demo.trying.TryingSection.clear_prompt": ALL,
    "demo.trying.TryingSection.show_seed": ALL,
    "demo.trying.TryingSection.reset": ALL,
    "demo.trying.TryingSection.make_link": ALL,
    "demo.trying.TryingSection.show_names": ALL,
    # Votes are judgments.
    "demo.trying.TryingSection.prefer_a": {A},
    "demo.trying.TryingSection.prefer_b": {A},
    "demo.trying.TryingSection.call_a_tie": {A},
    "demo.trying.TryingSection.call_both_bad": {A},
    # What is known of the versions, which annotators judge blind.
    "demo.gallery.GallerySection.open": LEAD_PAGE,
    "demo.gallery.GallerySection.show": LEAD_PAGE,
    "demo.versions.VersionsSection.open": LEAD_PAGE,
    "demo.versions.VersionsSection.show": LEAD_PAGE,
    "demo.exports.ExportsSection.open": LEAD_PAGE,
    "demo.exports.ExportsSection.follow": LEAD_PAGE,
    "demo.exports.ExportsSection.start": {R},
    "data.DataPage.show": ALL,
    "lead.page.LeadPage.enter": LEAD_PAGE,
    "lead.page.LeadPage.exclude_from": {L},
    # Shows acts to all who read the page; the exclusion form asks for itself, see test_quality.py.
    "lead.page.LeadPage.from_person": LEAD_PAGE,
    "lead.quality.QualitySection.open": LEAD_PAGE,
    "lead.quality.QualitySection.include": LEAD_PAGE,
    "lead.quality.QualitySection.open_item": LEAD_PAGE,
    "lead.quality.QualitySection.order_item": {L},
    "lead.exclusions.ExclusionsSection.open": LEAD_PAGE,
    "lead.exclusions.ExclusionsSection.foresee": LEAD_PAGE,
    "lead.exclusions.ExclusionsSection.exclude": {L},
    "lead.exclusions.ExclusionsSection.fill_since": {L},
    "lead.exclusions.ExclusionsSection.choose": {L},
    "lead.exclusions.ExclusionsSection.lift": {L},
    "lead.prompts.PromptsSection.open": LEAD_PAGE,
    "lead.prompt_browser.PromptBrowserSection.open": LEAD_PAGE,
    "lead.prompt_browser.PromptBrowserSection.refresh": LEAD_PAGE,
    "lead.prompt_browser.PromptBrowserSection.search": LEAD_PAGE,
    # Opens a prompt for all who read the page; what it changes it asks for itself, see test_prompt_browser.py.
    "lead.prompt_browser.PromptBrowserSection.press": LEAD_PAGE,
    "lead.prompt_browser.PromptBrowserSection.close": LEAD_PAGE,
    "lead.prompt_browser.PromptBrowserSection.edit": {L},
    "lead.prompt_browser.PromptBrowserSection.choose_starters": {L},
    "lead.prompts.PromptsSection.retry": {L},
    "lead.prompts.PromptsSection.import_file": {L},
    "lead.prompts.PromptsSection.import_kept": {L},
    "lead.prompts.PromptsSection.look_again": {L},
    "lead.prompts.PromptsSection.forget": {L},
    "lead.prompts.PromptsSection.watch": {L},
    "lead.prompts.PromptsSection.follow": LEAD_PAGE,
    "lead.prompts.PromptsSection.stop": {L},
    "lead.prompts.PromptsSection.add_lines": {L},
    "lead.prompts.PromptsSection.undo": {L},
    "lead.comparisons.BatchesSection.open": LEAD_PAGE,
    "lead.comparisons.BatchesSection.follow": LEAD_PAGE,
    "lead.comparisons.BatchesSection.choose_prompts": LEAD_PAGE,
    "lead.comparisons.BatchesSection.foresee": LEAD_PAGE,
    "lead.comparisons.BatchesSection.ask": {L},
    "lead.comparisons.BatchesSection.act": {L},
    "lead.comparisons.BatchesSection.assign": {L},
    "lead.gold.GoldSection.open": LEAD_PAGE,
    "lead.gold.GoldSection.show": {L},
    "lead.gold.GoldSection.choose": {L},
    "lead.gold.GoldSection.set_answer": {L},
    "lead.export.ExportSection.open": LEAD_PAGE,
    "lead.export.ExportSection.choose_format": LEAD_PAGE,
    "lead.export.ExportSection.start": {L},
    "lead.export.ExportSection.stop": {L},
    "lead.export.ExportSection.follow": LEAD_PAGE,
    "lead.guidelines.GuidelinesSection.open": LEAD_PAGE,
    "lead.guidelines.GuidelinesSection.view": LEAD_PAGE,
    "lead.guidelines.GuidelinesSection.show_preview": LEAD_PAGE,
    "lead.guidelines.GuidelinesSection.load": LEAD_PAGE,
    "lead.guidelines.GuidelinesSection.publish": {L},
    "lead.settings.SettingsSection.open": LEAD_PAGE,
    "lead.settings.SettingsSection.change": {L},
    "lead.accounts.AccountsSection.open": LEAD_PAGE,
    "lead.accounts.AccountsSection.edit": {L},
    "lead.accounts.AccountsSection.generate": {L},
    "lead.accounts.AccountsSection.add": {L},
    "lead.accounts.AccountsSection.set_roles": {L},
    "lead.accounts.AccountsSection.set_password": {L},
    "lead.accounts.AccountsSection.disable_or_enable": {L},
    "lead.audit.AuditSection.enter": LEAD_PAGE,
    "lead.audit.AuditSection.filter": LEAD_PAGE,
    "lead.audit.AuditSection.show_newer": LEAD_PAGE,
    "lead.audit.AuditSection.show_older": LEAD_PAGE,
    "training.form.RoundForm.show_preset": {R},
    "training.page.TrainingPage.open": {R},
    "training.page.TrainingPage.follow": {R},
    "training.page.TrainingPage.pick": {R},
    "training.page.TrainingPage.start_round": {R},
    "training.page.TrainingPage.cancel_round": {R},
    "training.page.TrainingPage.resume_round": {R},
    "training.page.TrainingPage.go_on_round": {R},
    "training.form.RoundForm.find": {R},
    "training.form.RoundForm.choose_method": {R},
    "training.page.TrainingPage.promote_version": {R},
    "training.page.TrainingPage.reject_version": {R},
    "training.page.TrainingPage.take_back": {R},
    "training.triggers_panel.TriggersPanel.open": {R},
    "training.triggers_panel.TriggersPanel.follow": {R},
    "training.triggers_panel.TriggersPanel.change": {R},
    "training.triggers_panel.TriggersPanel.try_out": {R},
    "training.side_by_side.SideBySide.open": {R},
    "training.side_by_side.SideBySide.pick": {R},
    "training.side_by_side.SideBySide.follow": {R},
    "training.naming.NamePanel.load": {R},
    "training.naming.NamePanel.write": {R},
    "training.queue_panel.QueuePanel.open": {R},
    "training.queue_panel.QueuePanel.follow": {R},
    "training.queue_panel.QueuePanel.take_out": {R},
    # Gradio's own: an example's text goes into its box, and a button stops what the same page began.
    "gradio.helpers.Examples.create.load_example": ALL,
    "gradio.cancel": ALL,
}

FUNCTIONS = {
    "judging.compare.build.next_comparison": {A},
    "judging.compare.build.judge": {A},
    "judging.compare.build.undo": {A},
    "judging.compare.build.renew": {A},
    "judging.history.build.past_judgments": {A},
    "judging.history.build.past_judgment": {A},
    "judging.history.build.correct": {A},
}

GRADIOS_OWN = {"gradio.helpers.Examples.create.load_example", "gradio.cancel"}
"""Handlers that cannot ask the gate; they show and change nothing of the store."""

NOBODY = Translator("en")("auth.not_signed_in")
REFUSED = [Translator("en")("auth.without_role", role=role) for role in ACCOUNT_ROLES]
NOT_THERE = Translator("en")("access.no_such_route")
NOT_FOR_THIS_ROLE = Translator("en")("access.without_role")


# ---- what there is


def same(found: set[str], table: dict) -> None:
    missing, over = sorted(found - set(table)), sorted(set(table) - found)
    assert not missing, f"say in the table above who may reach: {missing}"
    assert not over, f"no longer there, take out of the table above: {over}"


def test_every_http_route_is_in_the_table(pages):
    # HEAD comes with GET everywhere, and the guard treats them alike.
    same({f"{method} {path}" for method, path in routes_of(pages) if method != "HEAD"}, ROUTES)


def test_every_handler_is_in_the_table(pages):
    same({name for name, _ in handlers_of(pages.pages)}, HANDLERS)


def test_every_server_function_is_in_the_table(pages):
    same({name for name, *_ in functions_of(pages.pages)}, FUNCTIONS)


# ---- the walk


def error_in(text: str) -> str | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found.get("error") if isinstance(found, dict) else None


def filled(path: str) -> str:
    path = path.replace("{api_name}", "predict").replace("file={path_or_url:path}", "file=/tmp/x")
    return re.sub(r"\{[^}]+\}", "7", path)


@pytest.mark.slow
def test_who_reaches_which_http_route(visitors):
    for route, allowed in ROUTES.items():
        method, path = route.split()
        for role, client in visitors.items():
            for method_ in (method, "HEAD") if method == "GET" else (method,):
                if route == "POST /sign-out" and role in allowed:
                    # Would end the walk; test_auth_routes walks it.
                    continue
                status, text = reach(client, method_, filled(path), json={} if method == "POST" else None)
                got = (role, route, method_, status, text[:200])
                said = error_in(text)
                if role in allowed:
                    assert said not in (NOT_THERE, NOT_FOR_THIS_ROLE), got
                    assert status != 401 or route == "POST /sign-in", got
                elif role == "nobody":
                    assert status == 401, got
                else:
                    assert status == (403 if allowed else 404), got
                    assert method_ == "HEAD" or said == (NOT_FOR_THIS_ROLE if allowed else NOT_THERE), got


@pytest.mark.slow
def test_who_gets_through_to_which_handler(pages, visitors):
    wrong = [
        found
        for name, event in handlers_of(pages.pages)
        for role, client in visitors.items()
        if (found := problem(name, HANDLERS[name], role, *call(client, event)))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_who_gets_through_to_which_server_function(pages, visitors):
    wrong = []
    for name, block, attribute in functions_of(pages.pages):
        body = server_call(block, attribute)
        for role, client in visitors.items():
            wrong.append(problem(name, FUNCTIONS[name], role, *reach(client, "POST", "/gradio_api/component_server", json=body)))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.slow
def test_handlers_and_functions_ask_the_gate_themselves(pages, visitors, monkeypatch):
    """With the guard away: it stops nobody before the handlers, so that the walk above cannot see who asks."""
    monkeypatch.setattr(access.AccessMiddleware, "_route_or_refusal", lambda *_: access.Route("GET", ""))
    client = visitors["nobody"]
    answers = {name: call(client, event) for name, event in handlers_of(pages.pages)}
    for name, block, attribute in functions_of(pages.pages):
        answers[name] = reach(client, "POST", "/gradio_api/component_server", json=server_call(block, attribute))
    assert {name for name, (_, text) in answers.items() if NOBODY not in text} == GRADIOS_OWN


@pytest.mark.slow
def test_the_walk_has_left_everybody_signed_in(visitors):
    for role, client in visitors.items():
        assert client.get("/config").status_code == (401 if role == "nobody" else 200)


def problem(name: str, allowed: set[str], role: str, status: int, text: str) -> str | None:
    """What is wrong with such an answer to somebody of that role; None if nothing is."""
    refused = any(refusal in text for refusal in REFUSED)
    if NOT_THERE in text:
        return f"{name} is not there for {role}"
    if role == "nobody":
        return None if status == 401 else f"{name} answers nobody: {status} {text[:300]}"
    if refused and role in allowed:
        return f"{name} refuses {role}, who may: {text[:300]}"
    if not refused and role not in allowed:
        return f"{name} does not refuse {role}, who may not: it answers {status} {text[:300]}"
    return None


def test_the_walk_can_fail():
    """What it says of doors that are open or closed to the wrong people."""
    refusal = json.dumps({"error": REFUSED[1]})
    assert problem("x", {L}, A, 500, refusal) is None
    assert problem("x", {L}, L, 200, "{}") is None
    assert problem("x", {L}, "nobody", 401, "") is None
    assert problem("x", {L}, A, 200, "{}").startswith("x does not refuse annotator")
    assert problem("x", {L}, A, 500, '{"error": "the form is empty"}').startswith("x does not refuse annotator")
    assert problem("x", {L}, L, 500, refusal).startswith("x refuses lead, who may")
    assert problem("x", {L}, "nobody", 200, "{}").startswith("x answers nobody")
    assert problem("x", {L}, L, 404, NOT_THERE).startswith("x is not there")
