// @ts-check
// Steps of a ranking: functions from tiers to new tiers. Tied answers share a tier; an answer in no tier is not
// ranked.

/** @typedef {import("./types.js").Slot} Slot */
/** @typedef {import("./types.js").Tiers} Tiers */

/**
 * A drop on tier `index` (`join`), before it (`before`), or outside of the ranking (`out`). The index counts the tiers as
 * they were before the slot was taken out.
 * @typedef {{ kind: string | undefined, index: number }} Drop
 */

/** Takes the slot out and keeps the tier that it leaves, even if it is empty then. @param {Tiers} tiers @param {Slot} slot */
const removed = (tiers, slot) => tiers.map((tier) => tier.filter((other) => other !== slot));

/** @param {Tiers} tiers */
const withoutEmpty = (tiers) => tiers.filter((tier) => tier.length);

/** Takes the slot out of the ranking. @param {Tiers} tiers @param {Slot} slot */
export const take = (tiers, slot) => withoutEmpty(removed(tiers, slot));

/** Puts the slot in a new last place. @param {Tiers} tiers @param {Slot} slot */
export const place = (tiers, slot) => [...take(tiers, slot), [slot]];

/** Puts the slot in the last place that there is. @param {Tiers} tiers @param {Slot} slot */
export function join(tiers, slot) {
  const others = take(tiers, slot);
  return others.length ? [...others.slice(0, -1), [...others[others.length - 1], slot]] : [[slot]];
}

/** Slots of `count` that are not ranked. @param {Tiers} tiers @param {number} count */
export function unranked(tiers, count) {
  const ranked = tiers.flat();
  return Array.from({ length: count }, (_, slot) => slot).filter((slot) => !ranked.includes(slot));
}

/** Puts all unranked slots in one last place. @param {Tiers} tiers @param {number} count */
export function placeRest(tiers, count) {
  const others = unranked(tiers, count);
  return others.length ? [...tiers, others] : tiers;
}

/**
 * Moves the slot one step up (-1) or down (1): out of a shared tier into one of its own, or from its own tier into the
 * neighbour's.
 * @param {Tiers} tiers
 * @param {Slot} slot
 * @param {-1 | 1} by
 */
export function move(tiers, slot, by) {
  const at = tiers.findIndex((tier) => tier.includes(slot));
  if (tiers[at].length > 1) return removed(tiers, slot).toSpliced(by < 0 ? at : at + 1, 0, [slot]);
  const to = at + by;
  if (to < 0 || to >= tiers.length) return tiers;
  return tiers.map((tier, i) => (i === to ? [...tier, slot] : tier)).toSpliced(at, 1);
}

/**
 * @param {Tiers} tiers
 * @param {Slot} slot
 * @param {Drop} where
 */
export function drop(tiers, slot, { kind, index }) {
  const others = removed(tiers, slot);
  if (kind === "out") return withoutEmpty(others);
  const placed = kind === "join" ? others.map((tier, i) => (i === index ? [...tier, slot] : tier)) : others.toSpliced(index, 0, [slot]);
  return withoutEmpty(placed);
}
