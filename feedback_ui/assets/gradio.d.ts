// What Gradio hands to `start.js`, `row_buttons.js` and `copy_buttons.js`, which it runs as the bodies of functions.

/** The element that holds the component's HTML. */
declare const element: HTMLElement;
declare const server: import("./types.js").Server;
/** Triggers one of the component's events. */
declare function trigger(event: string, data?: object): void;
