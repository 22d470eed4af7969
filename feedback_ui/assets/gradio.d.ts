// What Gradio hands to `start.js`, which it runs as the body of a function.

/** The element that holds the component's HTML. */
declare const element: HTMLElement;
declare const server: import("./types.js").Server;
