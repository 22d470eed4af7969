// @ts-check
// Copies the text of an answer when its button is pressed. Gradio runs this text as a function's body, for each component.

element.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-act=copy]") : null;
  const answer = button?.closest("article");
  if (!(button instanceof HTMLButtonElement) || !answer) return;
  const name = button.textContent;
  const text = answer.querySelector(".rl-source")?.textContent ?? "";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain HTTP there is no clipboard: what is selected can be copied with the keyboard.
    const body = answer.querySelector(".rl-prose");
    if (body) getSelection()?.selectAllChildren(body);
    return;
  }
  button.textContent = answer.dataset.copied ?? name;
  setTimeout(() => {
    button.textContent = name;
  }, 1500);
});
