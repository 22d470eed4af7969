// @ts-check
// Measures the time between showing a comparison and submitting it: active, while the page is visible and the last input
// is less than half a minute old, or idle.

const IDLE_AFTER_MS = 30000;
const ACTIVITY = ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchstart", "input"];

/** @param {() => boolean} isVisible */
export function makeClock(isVisible) {
  let active = 0;
  let idle = 0;
  let countedUntil = performance.now();
  let lastActivity = countedUntil;
  let visible = isVisible();

  /** Adds the time since the last call to active or idle time, by the state that held then. */
  function count() {
    const now = performance.now();
    const activeUntil = visible ? Math.min(now, lastActivity + IDLE_AFTER_MS) : countedUntil;
    const worked = Math.max(0, activeUntil - countedUntil);
    active += worked;
    idle += now - countedUntil - worked;
    countedUntil = now;
    visible = isVisible();
  }

  function onActivity() {
    count();
    lastActivity = countedUntil;
  }

  function onVisibility() {
    count();
    if (visible) lastActivity = countedUntil;
  }

  for (const event of ACTIVITY) document.addEventListener(event, onActivity, { capture: true, passive: true });
  document.addEventListener("visibilitychange", onVisibility);

  return {
    /** Starts again, after the times of an earlier showing of the same comparison. */
    start(before = { active_ms: 0, idle_ms: 0 }) {
      countedUntil = lastActivity = performance.now();
      visible = isVisible();
      active = before.active_ms;
      idle = before.idle_ms;
    },
    /** @returns {import("./types.js").Timing} */
    timing() {
      count();
      const [active_ms, idle_ms] = [Math.round(active), Math.round(idle)];
      return { active_ms, idle_ms, client_ms: active_ms + idle_ms };
    },
    isActive: () => isVisible() && performance.now() - lastActivity < IDLE_AFTER_MS,
    end() {
      for (const event of ACTIVITY) document.removeEventListener(event, onActivity, { capture: true });
      document.removeEventListener("visibilitychange", onVisibility);
    },
  };
}
