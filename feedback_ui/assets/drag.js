// @ts-check
// Dragging with mouse or finger. It knows handles, drop targets and the edges of the screen, and nothing of rankings.

import { closest, targetOf } from "./dom.js";

const DRAG_AFTER_PX = 5;
const EDGE_PX = 70;
const SCROLL_PX = 14;

/**
 * @typedef {object} Drag
 * @property {HTMLElement} handle
 * @property {number} pointerId
 * @property {{ x: number, y: number }} start
 * @property {{ x: number, y: number } | null} at where the pointer is, once it has moved
 * @property {HTMLElement | null} preview what follows the pointer; null until the drag has begun
 * @property {HTMLElement | null} target
 * @property {number} frame
 */

/**
 * @typedef {object} DragOptions
 * @property {string} handles selector of what can be dragged
 * @property {() => boolean} mayDrag
 * @property {(under: Element) => HTMLElement | null} targetAt the drop target of the element under the pointer
 * @property {(handle: HTMLElement) => HTMLElement} previewOf
 * @property {() => void} started
 * @property {(target: HTMLElement | null) => void} over
 * @property {(handle: HTMLElement, target: HTMLElement) => void} dropped
 * @property {() => void} ended
 */

/**
 * @param {HTMLElement} root
 * @param {DragOptions} options
 */
export function makeDraggable(root, { handles, mayDrag, targetAt, previewOf, started, over, dropped, ended }) {
  /** @type {Drag | null} */
  let drag = null;

  /** @param {PointerEvent} event */
  function onPointerDown(event) {
    const handle = closest(targetOf(event), handles);
    if (!handle || drag || event.button !== 0 || !mayDrag()) return;
    const start = { x: event.clientX, y: event.clientY };
    drag = { handle, pointerId: event.pointerId, start, at: null, preview: null, target: null, frame: 0 };
    document.addEventListener("pointermove", onPointerMove);
    document.addEventListener("pointerup", onPointerUp);
    document.addEventListener("pointercancel", end);
    document.addEventListener("keydown", onKeyDown, true);
  }

  /** @param {Drag} begun */
  function begin(begun) {
    begun.preview = previewOf(begun.handle);
    begun.preview.classList.add("rl-drag-preview");
    root.append(begun.preview);
    root.classList.add("rl-dragging");
    started();
    begun.frame = requestAnimationFrame(scroll);
  }

  /** @param {PointerEvent} event */
  function onPointerMove(event) {
    if (!drag || event.pointerId !== drag.pointerId) return;
    const isFar = Math.hypot(event.clientX - drag.start.x, event.clientY - drag.start.y) > DRAG_AFTER_PX;
    if (!drag.preview && !isFar) return;
    if (!drag.preview) begin(drag);
    event.preventDefault();
    drag.at = { x: event.clientX, y: event.clientY };
    follow();
  }

  /** Moves the preview to the pointer and finds the target there. */
  function follow() {
    if (!drag?.at || !drag.preview) return;
    const { x, y } = drag.at;
    drag.preview.style.transform = `translate(${x + 10}px, ${y - 14}px)`;
    const under = document.elementFromPoint(x, y);
    drag.target = under && root.contains(under) ? targetAt(under) : null;
    over(drag.target);
  }

  /** Near an edge the page scrolls, or a list that is longer than its box. */
  function scroll() {
    if (!drag?.preview) return;
    if (drag.at) {
      const { x, y } = drag.at;
      const list = document.elementFromPoint(x, y)?.closest("[data-scrolls]");
      const box = list && list.scrollHeight > list.clientHeight ? list : null;
      const { top, bottom } = box ? box.getBoundingClientRect() : { top: 0, bottom: window.innerHeight };
      const edge = Math.min(EDGE_PX, (bottom - top) / 4);
      const step = y < top + edge ? -SCROLL_PX : y > bottom - edge ? SCROLL_PX : 0;
      if (step) {
        (box ?? window).scrollBy(0, step);
        follow();
      }
    }
    drag.frame = requestAnimationFrame(scroll);
  }

  /** @param {PointerEvent} event */
  function onPointerUp(event) {
    if (!drag || event.pointerId !== drag.pointerId) return;
    const { handle, target, preview } = drag;
    end();
    if (!preview) return;
    // The browser makes a click of this release, which is no tap.
    root.addEventListener("click", swallow, true);
    setTimeout(() => root.removeEventListener("click", swallow, true), 0);
    if (target) dropped(handle, target);
  }

  /** @param {Event} click */
  function swallow(click) {
    click.stopPropagation();
    click.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  function onKeyDown(event) {
    if (event.key !== "Escape" || !drag?.preview) return;
    event.preventDefault();
    event.stopPropagation();
    end();
  }

  function end() {
    if (!drag) return;
    const { preview, frame } = drag;
    drag = null;
    document.removeEventListener("pointermove", onPointerMove);
    document.removeEventListener("pointerup", onPointerUp);
    document.removeEventListener("pointercancel", end);
    document.removeEventListener("keydown", onKeyDown, true);
    // A tap changes nothing here: the element under it gets its click.
    if (!preview) return;
    cancelAnimationFrame(frame);
    preview.remove();
    root.classList.remove("rl-dragging");
    ended();
  }

  root.addEventListener("pointerdown", onPointerDown);
}
