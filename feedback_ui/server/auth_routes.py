"""The pages for signing in and out and for changing one's own password; they need no JavaScript.

Access to them is checked in `feedback_ui.server.access`, the order of password checks is set by
`feedback_ui.server.password_queue`, and passwords are verified by `storage.people.accounts`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import parse_qs

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from feedback_ui.server.access import PASSWORD, SIGN_IN
from feedback_ui.server.auth import Auth
from feedback_ui.server.password_queue import MAX_CONCURRENT_CHECKS, RETRY_AFTER_S, Attempt, Busy, PasswordQueue
from feedback_ui.shared.errors import browser_message
from feedback_ui.shared.html import asset, render_template
from feedback_ui.shared.i18n import Translator, translator_for
from storage.core.database import StoreError
from storage.people import account_names, accounts
from storage.people.accounts import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, SignInRefused
from storage.people.sign_in_throttle import SignInOrigin

MAX_FORM_BYTES = 10_000
"""The largest form that is accepted, in bytes; visitors who are not signed in send these."""

KNOWN_DAYS = 365
"""How long a browser is remembered after it has signed in, in days."""


class AuthRoutes:
    """Handlers of the authentication pages of one app. They run in its event loop."""

    def __init__(self, auth: Auth):
        self.auth = auth
        self._icon = b64encode(asset("favicon.svg").encode()).decode()
        digest = b64encode(sha256(asset("sign_in.css").encode()).digest()).decode()
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        self._queue = PasswordQueue()
        self._limiter = CapacityLimiter(MAX_CONCURRENT_CHECKS)

    # ---- signing in and out

    async def show(self, request: Request) -> Response:
        return RedirectResponse("/", 303) if self.auth.visitor(request) else self._sign_in_form(request)

    async def sign_in(self, request: Request) -> Response:
        """Checks name and password, and replaces this browser's session with a new one."""
        store, translate = self.auth.store, translator_for(request)
        if not accounts.any_accounts(store):
            return RedirectResponse("/", 303)
        if (form := await read_form(request)) is None:
            return self._sign_in_form(request, translate("sign_in.wrong"), status=413)
        name, password = form.get("name", ""), form.get("password", "")
        try:
            token = await self._check_password(request, name, lambda origin: accounts.sign_in(store, name, password, origin))
        except Busy:
            return self._sign_in_form(request, translate("sign_in.busy", count=RETRY_AFTER_S), name=name, status=429, wait_s=RETRY_AFTER_S)
        except SignInRefused as error:
            text = translate("sign_in.wait", count=error.wait_s) if error.wait_s else translate("sign_in.wrong")
            return self._sign_in_form(request, text, name=name, status=429 if error.wait_s else 401, wait_s=error.wait_s)
        except StoreError as error:
            return self._sign_in_form(request, browser_message(error), name=name, status=503)
        await self._end_session(request)
        return self._begin_session(request, token, "/")

    async def sign_out(self, request: Request) -> Response:
        await self._end_session(request)
        response = RedirectResponse(SIGN_IN, 303)
        for cookie in (self.auth.cookie, self.auth.roles_cookie):
            response.delete_cookie(cookie, path="/", samesite="strict", secure=request.url.scheme == "https")
        return response

    # ---- one's own password

    async def show_password(self, request: Request) -> Response:
        visitor = self.auth.visitor(request)
        if visitor is None or not visitor.signed_in:
            return RedirectResponse("/", 303)
        done = translator_for(request)("password.changed") if "changed" in request.query_params else ""
        return self._password_form(request, visitor.annotator.name, done=done)

    async def change_password(self, request: Request) -> Response:
        """Changes the visitor's password. This browser gets a new session, and all their other sessions end."""
        store, translate, visitor = self.auth.store, translator_for(request), self.auth.visitor(request)
        token = self.auth.token(request)
        if visitor is None or not visitor.signed_in or token is None:
            return RedirectResponse("/", 303)
        name = visitor.annotator.name
        if (form := await read_form(request)) is None:
            return self._password_form(request, name, translate("password.long", count=MAX_PASSWORD_CHARS), status=413)
        current, new, again = (form.get(field, "") for field in ("current", "new", "again"))
        if problem := _problem_of_new(translate, current, new, again):
            return self._password_form(request, name, problem, status=400)
        try:
            new_token = await self._check_password(
                request, name, lambda origin: accounts.change_password(store, token, current, new, origin)
            )
        except Busy:
            text = translate("sign_in.busy", count=RETRY_AFTER_S)
            return self._password_form(request, name, text, status=429, wait_s=RETRY_AFTER_S)
        except SignInRefused as error:
            text = translate("password.wait", count=error.wait_s) if error.wait_s else translate("password.wrong")
            return self._password_form(request, name, text, status=429 if error.wait_s else 403, wait_s=error.wait_s)
        except StoreError as error:
            return self._password_form(request, name, browser_message(error), status=503)
        return self._begin_session(request, new_token, f"{PASSWORD}?changed")

    # ---- inside

    async def _check_password(self, request: Request, name: str, act: Callable[[SignInOrigin], str]) -> str:
        """Runs `act` in a thread when the password queue reaches this attempt, and returns its session token."""
        store = self.auth.store
        browser = accounts.known_browser(store, name, self.auth.cookies(request).get(browser_cookie(self.auth)))
        origin = SignInOrigin(browser, known=True) if browser else SignInOrigin(address_of(request))
        # A throttled attempt is refused at once, without entering the queue.
        await to_thread.run_sync(accounts.check_throttle, store, name, origin)
        async with self._queue.turn(Attempt(account_names.folded(name), origin)) as turn:
            token = await to_thread.run_sync(act, origin, limiter=self._limiter)
            turn.succeed()
        return token

    def _begin_session(self, request: Request, token: str, to: str) -> Response:
        response = RedirectResponse(to, 303)
        account = accounts.of_token(self.auth.store, token)
        if account is None:
            # The account was changed or disabled meanwhile.
            return RedirectResponse(SIGN_IN, 303)
        secure = request.url.scheme == "https"
        cookie_value = self.auth.cookies(request).get(browser_cookie(self.auth))
        notes = accounts.browser_cookie_value(self.auth.store, account.id, cookie_value)
        for cookie, value, hidden, days in (
            (self.auth.cookie, token, True, accounts.MAX_SESSION_DAYS),
            (self.auth.roles_cookie, ".".join(sorted(account.roles)), False, accounts.MAX_SESSION_DAYS),
            (browser_cookie(self.auth), notes, True, KNOWN_DAYS),
        ):
            response.set_cookie(cookie, value, httponly=hidden, samesite="strict", secure=secure, path="/", max_age=days * 24 * 3600)
        return response

    async def _end_session(self, request: Request) -> None:
        if token := self.auth.token(request):
            await to_thread.run_sync(accounts.sign_out, self.auth.store, token)

    def _sign_in_form(self, request: Request, problem: str = "", *, name: str = "", status: int = 200, wait_s: int = 0) -> Response:
        translate = translator_for(request)
        texts = {
            "title": translate("sign_in.title"),
            "name_label": translate("sign_in.name"),
            "password_label": translate("sign_in.password"),
            "submit": translate("sign_in.submit"),
            "help": translate("sign_in.help"),
            "name": name,
            "action": SIGN_IN,
        }
        return self._page("sign_in.html", translate, texts, problem, status=status, wait_s=wait_s)

    def _password_form(
        self, request: Request, name: str, problem: str = "", *, done: str = "", status: int = 200, wait_s: int = 0
    ) -> Response:
        translate = translator_for(request)
        texts = {label: translate(f"password.{label}") for label in ("title", "submit", "back")}
        texts |= {f"{label}_label": translate(f"password.{label}") for label in ("current", "new", "again")}
        texts |= {
            "whose": translate("password.whose", name=name),
            "help": translate("password.help", count=MIN_PASSWORD_CHARS),
            "shortest": str(MIN_PASSWORD_CHARS),
            "name": name,
            "action": PASSWORD,
        }
        return self._page("password.html", translate, texts, problem, done=done, status=status, wait_s=wait_s)

    def _page(
        self, template: str, translate: Translator, texts: dict[str, str], problem: str, *, done: str = "", status: int, wait_s: int
    ) -> Response:
        headers = {"Content-Security-Policy": self._policy} | ({"Retry-After": str(wait_s)} if wait_s else {})
        filled = render_template(template, language=translate.language, icon=self._icon, problem=problem, done=done, **texts)
        return HTMLResponse(filled, status, headers=headers)


def browser_cookie(auth: Auth) -> str:
    """The name of the cookie that records which accounts have signed in with this browser."""
    return f"{auth.cookie}-browser"


def address_of(request: Request) -> str:
    """The client's address, as reported by a local proxy if there is one. IPv6 addresses are cut to their /64 network, which usually
    belongs to one client."""
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host.split("%")[0])
    except ValueError:
        return host[:80]
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return str(address)


async def read_form(request: Request) -> dict[str, str] | None:
    """The fields of a form; None if the body is longer than `MAX_FORM_BYTES`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return None
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")
    return {name: values[0] for name, values in fields.items()}


def _problem_of_new(translate: Translator, current: str, new: str, again: str) -> str | None:
    """The error message for a new password; None if it is acceptable."""
    length = len(account_names.composed(new))
    if length < MIN_PASSWORD_CHARS:
        return translate("password.short", count=MIN_PASSWORD_CHARS)
    if length > MAX_PASSWORD_CHARS:
        return translate("password.long", count=MAX_PASSWORD_CHARS)
    if new != again:
        return translate("password.differ")
    if new == current:
        return translate("password.same")
    return None
