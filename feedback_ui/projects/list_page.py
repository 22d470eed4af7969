"""The page with the projects that the visitor may enter. It needs no JavaScript."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from starlette.responses import HTMLResponse, Response

from feedback_ui.server.access import PASSWORD, SIGN_OUT
from feedback_ui.shared.html import asset, render_template
from feedback_ui.shared.i18n import Translator
from storage.people.accounts import Account, in_order

RETRY_S = 5
"""When a page that could not be opened yet is asked for again, in seconds."""


class ListPage:
    """Renders the page, with a notice above the list where a project could not be opened."""

    def __init__(self) -> None:
        self._icon = b64encode(asset("favicon.svg").encode()).decode()
        digests = " ".join(
            f"'sha256-{b64encode(sha256(asset(name).encode()).digest()).decode()}'" for name in ("sign_in.css", "projects.css")
        )
        self._policy = (
            f"default-src 'none'; style-src {digests}; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )

    def render(
        self, translate: Translator, visitor: str, entered: Sequence[tuple[str, Account]], *, problem: str = "", status: int = 200
    ) -> Response:
        projects = [
            {"name": name, "address": f"/p/{name}/", "roles": ", ".join(translate(f"roles.{role}") for role in in_order(account.roles))}
            for name, account in entered
        ]
        texts = {name: translate(f"projects.{name}") for name in ("title", "empty", "empty_help")}
        texts |= {"password": translate("visitor.password"), "sign_out": translate("visitor.sign_out"), "whose": visitor}
        addresses = {"password_address": PASSWORD, "sign_out_address": SIGN_OUT}
        filled = render_template(
            "projects.html", language=translate.language, icon=self._icon, problem=problem, projects=projects, **texts, **addresses
        )
        retry = {"Retry-After": str(RETRY_S)} if status == 503 else {}
        return HTMLResponse(filled, status, headers={"Content-Security-Policy": self._policy, **retry})
