// @ts-check
// Runs in the page's head, before Gradio's own scripts and before anything is painted: a classic script, not a module.

{
  const NOT_SIGNED_IN = 401;
  /** Statuses with which a server function is refused: the page shows the reason. */
  const REFUSED = [400, 408, 413, 415, 503];
  /** Those of them where sending the same request again is of no use. */
  const FIXABLE = [400, 413, 415];

  // Gradio sets the browser's language as the page's, even if the texts are not in it. A screen reader would then read
  // English with the sounds of another language.
  document.documentElement.lang = navigator.language.split("-")[0] === "ko" ? "ko" : "en";

  // Hides the tabs of other roles, for convenience only: each handler checks the role itself.
  const cookie = document.querySelector("meta[name=roles-cookie]")?.getAttribute("content");
  const roles = document.cookie.split("; ").find((part) => part.startsWith(`${cookie}=`));
  if (roles) document.documentElement.dataset.roles = roles.split("=")[1].replaceAll(".", " ");

  const plainFetch = window.fetch;
  window.fetch = async (...request) => {
    const response = await plainFetch(...request);
    const url = new URL(response.url || "about:blank");
    if (url.origin !== location.origin) return response;
    const isSignedOut = response.status === NOT_SIGNED_IN;
    // Signed out, or the first account was made meanwhile: the page can do nothing more.
    if (isSignedOut) location.assign("/");
    if (!url.pathname.includes("/gradio_api/component_server")) return response;
    if (!isSignedOut && !REFUSED.includes(response.status)) return response;
    // Gradio's client drops the reason for which a server function was refused; the pages show it.
    const { error } = await response.clone().json().catch(() => ({}));
    if (!error) return response;
    // The page is being left, so that it could not ask later whether its visitor is signed out.
    if (isSignedOut) return Response.json({ refused: error, signed_out: true });
    return Response.json({ problem: error, fixable: FIXABLE.includes(response.status) });
  };
}
