// What was begun and not sent, for this tab: it survives a reload, a lost connection and a lost session.

const MOST_DRAFTS = 20;

function makeDrafts(page) {
  const prefix = `rankloop.draft.${page}.`;

  function guarded(act) {
    try { return act(); } catch { return null; }
  }

  function prune() {
    const kept = Object.keys(sessionStorage).filter((key) => key.startsWith(prefix));
    const age = (key) => guarded(() => JSON.parse(sessionStorage.getItem(key)).at) ?? 0;
    for (const key of kept.sort((a, b) => age(b) - age(a)).slice(MOST_DRAFTS)) sessionStorage.removeItem(key);
  }

  return {
    find: (id) => guarded(() => JSON.parse(sessionStorage.getItem(prefix + id))),
    drop: (id) => guarded(() => sessionStorage.removeItem(prefix + id)),
    keep: (id, draft) => guarded(() => {
      sessionStorage.setItem(prefix + id, JSON.stringify({ ...draft, at: Date.now() }));
      prune();
    }),
  };
}
