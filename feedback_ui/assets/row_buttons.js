// @ts-check
// Reports the act and the row of a button in a table. Gradio runs this text as a function's body, for each table.

element.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-act]") : null;
  if (button instanceof HTMLButtonElement) trigger("click", { act: button.dataset.act, row: Number(button.dataset.row) });
});
