"""The Accounts section: who may sign in, with which roles. The first account turns sign-in on.

Where several projects share their accounts, the section says who may enter this project; passwords are then not its concern.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components import Component

from feedback_ui.lead import accounts_view, lead_view
from feedback_ui.lead.section import SectionContext, chosen, listing, refusal
from feedback_ui.server.auth import Visitor
from feedback_ui.shared import presenters
from feedback_ui.shared.html import EMPTY
from feedback_ui.shared.i18n import Translator, translator_for
from feedback_ui.shared.theme import QUIET, html, label, static_text
from storage.core.database import StoreError
from storage.core.records import ACCOUNT_ROLES, Role
from storage.people import accounts, members


class AccountsSection:
    def __init__(self, context: SectionContext):
        self.store, self.auth = context.store, context.auth
        passwords = not context.auth.shared
        self.warning = html(elem_id="accounts-warning", elem_classes="rl-optional")
        self.list = listing(elem_id="accounts-list", elem_classes="rl-optional")
        self.edited = gr.State(None)
        with gr.Column(visible=False, elem_classes="rl-action-form rl-panel", elem_id="account-edit") as self.editing:
            self.whose = html(elem_id="account-whose")
            with gr.Row(equal_height=False):
                with gr.Column(min_width=280):
                    self.roles = gr.CheckboxGroup(list(ACCOUNT_ROLES), label=label("lead.accounts.roles"), elem_id="account-roles")
                    self.set_roles_button = gr.Button(label("lead.accounts.set_roles"), elem_id="account-set-roles", scale=0, min_width=160)
                with gr.Column(min_width=280, visible=passwords):
                    self.password = gr.Textbox(
                        label=label("lead.accounts.new_password"), type="password", max_lines=1, elem_id="account-password"
                    )
                    self.generate_button = gr.Button(label("lead.accounts.generate"), elem_id="account-generate", scale=0, min_width=160)
                    self.set_password_button = gr.Button(
                        label("lead.accounts.set_password"), elem_id="account-set-password", scale=0, min_width=160
                    )
            with gr.Row(elem_classes="rl-buttons"):
                self.able = gr.Button(label("lead.accounts.disable"), elem_id="account-able", scale=0, min_width=160)
        with gr.Column(elem_classes="rl-action-form rl-panel", elem_id="account-add") as self.adding:
            html(static_text("lead.accounts.add_title"), elem_classes="rl-subheading")
            html(static_text("lead.accounts.member_help"), elem_classes="rl-muted", visible=not passwords)
            with gr.Row(equal_height=False):
                self.new_name = gr.Textbox(label=label("lead.accounts.name"), max_lines=1, min_width=200, elem_id="account-new-name")
                self.new_password = gr.Textbox(
                    label=label("lead.accounts.password"),
                    type="password",
                    max_lines=1,
                    min_width=200,
                    visible=passwords,
                    elem_id="account-new-password",
                )
                self.new_roles = gr.CheckboxGroup(
                    list(ACCOUNT_ROLES), value=["annotator"], label=label("lead.accounts.roles"), min_width=280, elem_id="account-new-roles"
                )
            self.adopts = gr.Checkbox(
                label=label("lead.accounts.adopts"), info=label("lead.accounts.adopts_help"), visible=False, elem_id="account-adopts"
            )
            self.generate_new_button = gr.Button(
                label("lead.accounts.generate"), visible=passwords, elem_id="account-generate-new", scale=0, min_width=160
            )
            self.add_button = gr.Button(label("lead.accounts.add"), variant="primary", elem_id="account-create", scale=0, min_width=160)
        self.message = html(elem_id="accounts-message", elem_classes="rl-optional")
        self.edit_fields = [self.edited, self.editing, self.whose, self.roles, self.password, self.able]
        self.shown = [
            self.warning, self.list, *self.edit_fields, self.adding, self.new_name, self.new_password, self.new_roles, self.adopts,
            self.message,
        ]  # fmt: skip

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.open, None, self.shown, **QUIET)
        self.list.click(self.edit, None, [self.message, *self.edit_fields], **QUIET)
        self.add_button.click(self.add, [self.new_name, self.new_password, self.new_roles, self.adopts], self.shown, **QUIET)
        self.generate_button.click(self.generate, None, self.password, **QUIET)
        self.generate_new_button.click(self.generate, None, self.new_password, **QUIET)
        self.set_roles_button.click(self.set_roles, [self.edited, self.roles], self.shown, **QUIET)
        self.set_password_button.click(self.set_password, [self.edited, self.password], self.shown, **QUIET)
        self.able.click(self.disable_or_enable, self.edited, self.shown, **QUIET)

    def open(self, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.reads(request, "lead"), translator_for(request)
        return {**self._list(translate, visitor), **self._closed(translate), self.message: EMPTY}

    def edit(self, event: gr.EventData, request: gr.Request) -> dict[Component, Any]:
        self.auth.acts(request, "lead")
        translate = translator_for(request)
        try:
            account = accounts.get(self.store, chosen(event)[1])
        except StoreError as error:
            return {self.message: refusal(error)}
        return {
            self.edited: account.id,
            self.editing: gr.Column(visible=True),
            self.whose: lead_view.heading(account.name),
            self.roles: gr.CheckboxGroup(_role_choices(translate), value=accounts.in_order(account.roles)),
            self.password: gr.Textbox("", type="password", buttons=[]),
            self.able: gr.Button(translate("lead.accounts.enable" if account.disabled else "lead.accounts.disable")),
            self.message: EMPTY,
        }

    def generate(self, request: gr.Request) -> gr.Textbox:
        """Fills in a random password, readable and with a button that copies it."""
        self.auth.acts(request, "lead")
        return gr.Textbox(accounts.random_password(), type="text", buttons=["copy"])

    def add(self, name: str, password: str, roles: list[Role], adopts: bool, request: gr.Request) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        first, shared, by = not accounts.any_accounts(self.store), self.auth.shared, visitor.annotator.id
        try:
            if shared:
                account = members.add(self.store, shared.store, name or "", roles, by)
            else:
                account = accounts.create(self.store, name or "", password or "", roles, by, adopts_local=first and bool(adopts))
        except StoreError as error:
            return {self.message: refusal(error)}
        added = translate(f"lead.accounts.{'member_added' if shared else 'first_added' if first else 'added'}", name=account.name)
        return {
            **self._list(translate, visitor),
            self.new_name: "",
            self.new_password: gr.Textbox("", type="password", buttons=[]),
            # Creating the first account signs its creator out: further requests from this page would be refused.
            self.adding: gr.Column(visible=not first),
            self.message: accounts_view.reload_notice(translate, added) if first else presenters.notice(added),
        }

    def set_roles(self, account_id: int | None, roles: list[Role], request: gr.Request) -> dict[Component, Any]:
        # An account of several projects stays signed in: its roles are read anew with each request.
        done = "lead.accounts.changed" if self.auth.shared else "lead.accounts.roles_set"
        return self._change(request, lambda by: accounts.set_roles(self.store, _chosen(account_id), roles, by), done)

    def set_password(self, account_id: int | None, password: str, request: gr.Request) -> dict[Component, Any]:
        def set_new(by: int) -> None:
            if self.auth.shared:
                raise StoreError("A password is the same for all projects and is not set here: ask whoever runs rankloop for a new one.")
            accounts.set_password(self.store, _chosen(account_id), password or "", by)

        return self._change(request, set_new, "lead.accounts.password_set")

    def disable_or_enable(self, account_id: int | None, request: gr.Request) -> dict[Component, Any]:
        def turn(by: int) -> None:
            account = accounts.get(self.store, _chosen(account_id))
            (accounts.enable if account.disabled else accounts.disable)(self.store, account.id, by)

        return self._change(request, turn, "lead.accounts.changed")

    def _change(self, request: gr.Request, act: Callable[[int], Any], text_key: str) -> dict[Component, Any]:
        visitor, translate = self.auth.acts(request, "lead"), translator_for(request)
        try:
            act(visitor.annotator.id)
        except StoreError as error:
            return {self.message: refusal(error)}
        return {**self._list(translate, visitor), **self._closed(translate), self.message: presenters.notice(translate(text_key))}

    def _list(self, translate: Translator, visitor: Visitor) -> dict[Component, Any]:
        acts = visitor.may_act("lead")
        every = accounts.all_accounts(self.store)
        return {
            self.warning: EMPTY if every else presenters.notice(translate("lead.accounts.first_warning"), "warn"),
            self.list: accounts_view.account_list(translate, every, acts=acts),
            self.adding: gr.Column(visible=acts),
            self.adopts: gr.Checkbox(False, visible=not every and accounts.count_local(self.store) > 0),
            self.new_roles: gr.CheckboxGroup(
                _role_choices(translate), value=["annotator"] if every else ["annotator", "lead", "researcher"]
            ),
        }

    def _closed(self, translate: Translator) -> dict[Component, Any]:
        return {
            self.edited: None,
            self.editing: gr.Column(visible=False),
            self.password: gr.Textbox("", type="password", buttons=[]),
            self.roles: gr.CheckboxGroup(_role_choices(translate), value=[]),
        }


def _role_choices(translate: Translator) -> list[tuple[str, str]]:
    return [(translate(f"roles.{role}"), role) for role in ACCOUNT_ROLES]


def _chosen(account_id: int | None) -> int:
    if account_id is None:
        raise StoreError("No account is chosen: press Edit beside one.")
    return account_id
