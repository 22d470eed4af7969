// Dragging by pointer, mouse and finger alike. Knows handles, targets and the edges of the screen; nothing of rankings.

const DRAG_AFTER_PX = 5;
const EDGE_PX = 70;
const SCROLL_PX = 14;

// `targetAt(element)` gives what is under the pointer, or null; `ghostOf(handle)` what follows it.
function makeDrag(root, { handles, mayDrag, targetAt, ghostOf, started, over, dropped, ended }) {
  let drag = null;

  function begin(event) {
    const handle = event.target.closest(handles);
    if (!handle || drag || event.button !== 0 || !mayDrag()) return;
    drag = { handle, id: event.pointerId, x: event.clientX, y: event.clientY, moving: false, target: null };
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", drop);
    document.addEventListener("pointercancel", cancel);
    document.addEventListener("keydown", escape, true);
  }

  function lift() {
    drag.moving = true;
    drag.ghost = ghostOf(drag.handle);
    drag.ghost.classList.add("rl-drag-preview");
    root.append(drag.ghost);
    root.classList.add("rl-dragging");
    started(drag.handle);
    drag.frame = requestAnimationFrame(scroll);
  }

  function move(event) {
    if (event.pointerId !== drag.id) return;
    const far = Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > DRAG_AFTER_PX;
    if (!drag.moving && !far) return;
    if (!drag.moving) lift();
    event.preventDefault();
    drag.at = { x: event.clientX, y: event.clientY };
    look();
  }

  function look() {
    const { x, y } = drag.at;
    drag.ghost.style.transform = `translate(${x + 10}px, ${y - 14}px)`;
    const under = document.elementFromPoint(x, y);
    drag.target = under && root.contains(under) ? targetAt(under) : null;
    over(drag.target);
  }

  // Near an edge the page goes on by itself, and so does a list that is longer than its place.
  function scroll() {
    if (!drag?.moving) return;
    if (drag.at) {
      const under = document.elementFromPoint(drag.at.x, drag.at.y)?.closest("[data-scrolls]");
      const inner = under && under.scrollHeight > under.clientHeight ? under : null;
      const { top, bottom } = inner ? inner.getBoundingClientRect() : { top: 0, bottom: window.innerHeight };
      const edge = Math.min(EDGE_PX, (bottom - top) / 4);
      const step = drag.at.y < top + edge ? -SCROLL_PX : drag.at.y > bottom - edge ? SCROLL_PX : 0;
      if (step) {
        (inner ?? window).scrollBy(0, step);
        look();
      }
    }
    drag.frame = requestAnimationFrame(scroll);
  }

  function drop(event) {
    if (event.pointerId !== drag.id) return;
    const { handle, target, moving } = drag;
    end();
    if (!moving) return;
    // The click that a browser makes of this release is no tap.
    root.addEventListener("click", swallow, true);
    setTimeout(() => root.removeEventListener("click", swallow, true), 0);
    if (target) dropped(handle, target);
  }

  function swallow(click) {
    click.stopPropagation();
    click.preventDefault();
  }

  function cancel() {
    if (drag) end();
  }

  function escape(event) {
    if (event.key !== "Escape" || !drag?.moving) return;
    event.preventDefault();
    event.stopPropagation();
    cancel();
  }

  function end() {
    const { moving, ghost, frame } = drag;
    drag = null;
    document.removeEventListener("pointermove", move);
    document.removeEventListener("pointerup", drop);
    document.removeEventListener("pointercancel", cancel);
    document.removeEventListener("keydown", escape, true);
    // A tap leaves everything as it is: what is under it gets its click.
    if (!moving) return;
    cancelAnimationFrame(frame);
    ghost.remove();
    root.classList.remove("rl-dragging");
    ended();
  }

  root.addEventListener("pointerdown", begin);
}
