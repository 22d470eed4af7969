// @ts-check
// Starts a judging page in the component that Gradio has just built. Gradio runs this text as a function's body, which
// cannot hold static imports, so the modules come by a dynamic one. Their address holds a digest of all of them.

{
  const page = /** @type {HTMLElement} */ (element.firstElementChild);
  const { module = "", loadFailed = "{}" } = page.dataset;
  import(new URL(module, document.baseURI).href).then(
    (judging) => judging.start(page, server),
    (error) => {
      console.error(error);
      const messages = JSON.parse(loadFailed);
      const message = document.createElement("p");
      message.setAttribute("role", "alert");
      message.dataset.testid = "load-failed";
      message.textContent = messages[document.documentElement.lang] ?? messages.en;
      page.replaceChildren(message);
    },
  );
}
