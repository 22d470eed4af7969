// Where the time goes between painted and sent: active, with the page in sight and a hand or key moving in the last
// half minute, or idle.

const IDLE_AFTER_MS = 30000;
const SIGNS_OF_LIFE = ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchstart", "input"];

function makeClock(isInSight) {
  let active = 0;
  let idle = 0;
  let mark = performance.now();
  let lastSign = mark;
  let inSight = isInSight();

  // Books the time since the last look, by what held then.
  function book() {
    const now = performance.now();
    const activeUntil = inSight ? Math.min(now, lastSign + IDLE_AFTER_MS) : mark;
    const worked = Math.max(0, activeUntil - mark);
    active += worked;
    idle += now - mark - worked;
    mark = now;
    inSight = isInSight();
  }

  function onSign() {
    book();
    lastSign = mark;
  }

  function onSight() {
    book();
    if (inSight) lastSign = mark;
  }

  for (const sign of SIGNS_OF_LIFE) document.addEventListener(sign, onSign, { capture: true, passive: true });
  document.addEventListener("visibilitychange", onSight);

  return {
    // From here on, after what an earlier sight of the same comparison took.
    start(before = { active_ms: 0, idle_ms: 0 }) {
      mark = lastSign = performance.now();
      inSight = isInSight();
      active = before.active_ms;
      idle = before.idle_ms;
    },
    timing() {
      book();
      const [active_ms, idle_ms] = [Math.round(active), Math.round(idle)];
      return { active_ms, idle_ms, client_ms: active_ms + idle_ms };
    },
    isActive: () => isInSight() && performance.now() - lastSign < IDLE_AFTER_MS,
    end() {
      for (const sign of SIGNS_OF_LIFE) document.removeEventListener(sign, onSign, { capture: true });
      document.removeEventListener("visibilitychange", onSight);
    },
  };
}
