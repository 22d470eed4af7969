// The types of what the server sends (`feedback_ui/judging/judging_view.py`) and of what the modules hand to each other.

/** A completion's place on the page, from 0. */
export type Slot = number;
/** Slots from best to worst; answers that share a place share a tier. */
export type Tiers = Slot[][];

export type Choice = "a" | "b" | "tie" | "both_bad";
export type Strength = "significantly" | "better" | "slightly" | "negligibly";
/** Two answers without a strength (`choose`), with two steps of it for each (`scale`) or four (`fine`); `rank`: three to nine answers. */
export type Mode = "choose" | "scale" | "fine" | "rank";

export interface Answer {
  choice: Choice | null;
  strength: Strength | null;
}

export interface Flag {
  kind: string;
  note: string;
  /** Null for the prompt. */
  slot: Slot | null;
}

export interface IdealAnswer {
  text: string;
  /** The answer that it was started from. */
  slot: Slot | null;
}

/** Slot, then aspect, to the rating. */
export type Ratings = Record<string, Record<string, number>>;

export interface Details {
  aspects: Ratings;
  rationale: string;
  ideal: IdealAnswer | null;
}

/** Active and idle time on one comparison, in milliseconds; `client_ms` is their sum. */
export interface Timing {
  active_ms: number;
  idle_ms: number;
  client_ms: number;
}

/** What the form submits: a choice, a ranking or a skip. */
export interface Judgment {
  choice: Choice | "rank" | "skip" | null;
  strength?: Strength | null;
  tiers?: Tiers;
  reason?: string;
  aspects?: Ratings;
  rationale: string;
  ideal?: IdealAnswer | null;
  flags: Flag[];
}

/** A judgment that was begun or stored, as the form shows it again. Parts may be missing. */
export interface Draft {
  choice?: Choice | "rank" | "skip" | null;
  strength?: Strength | null;
  tiers?: Tiers;
  aspects?: Ratings;
  rationale?: string;
  ideal?: IdealAnswer | null;
  flags?: Flag[];
  timing?: Timing;
}

/** The inputs beside the choice that the project's settings ask for. */
export interface Inputs {
  /** Steps of strength for each of two answers; 0 asks for none. */
  strength: 0 | 2 | 4;
  aspects: string[];
  /** The highest rating. */
  scale: number;
  rationale: "off" | "optional" | "required";
  min_chars: number;
  ideal: boolean;
  flags: boolean;
}

export interface Turn {
  role: string;
  speaker: string;
  html: string;
}

export interface Guidelines {
  /** A digest of the text. */
  id: string;
  /** Missing if the browser has this version already. */
  html?: string;
}

export interface ComparisonView {
  state: "comparison";
  presentation_id: string;
  kind: string;
  turns: Turn[];
  /** Sanitized HTML for each slot. */
  answers: string[];
  /** Whether each answer ended at its length limit. */
  cut_off: boolean[];
  inputs: Inputs;
  count: string;
  guidelines: Guidelines | null;
  /** Whether the annotator has judged nothing yet. */
  practice: boolean;
  /** The Markdown of each answer, if an ideal answer may be written. */
  sources?: string[];
}

export interface EmptyView {
  state: "empty";
  title: string;
  note: string;
  count: string;
  guidelines: Guidelines | null;
}

export type View = ComparisonView | EmptyView;

export interface Exclusion {
  rule: string;
  reason: string;
}

/** One line of the History page. */
export interface PastRow {
  id: string;
  at: string;
  prompt: string;
  verdict: string;
  marks: string[];
  excluded: Exclusion | null;
}

export interface PastView extends ComparisonView {
  judgment_id: string;
  row: PastRow;
  judgment: Draft;
}

/** Why nothing was done. */
export interface Problem {
  problem: string;
  /** The request itself is wrong, so that sending it again is of no use. */
  fixable?: boolean;
}

export interface Saved {
  /** Missing if nothing was saved. */
  next?: View;
  problem?: string;
  fixable?: boolean;
  /** The lease was over and somebody else has the comparison. */
  lease_over?: boolean;
  /** The judgment of this comparison that the store has already; what was sent says something else and was not saved. */
  stored?: string;
  message?: string;
  /** The judgment that was undone, if `next` is its comparison. */
  undone?: Draft;
}

/** The server functions and their replies. A refusal is thrown as `Refusal`. */
export interface Replies {
  next_comparison: View | Problem;
  judge: Saved;
  undo: Saved;
  renew: { held: boolean } | Problem;
  past_judgments: { rows: PastRow[]; older: string | null } | Problem;
  past_judgment: { view: PastView } | Problem;
  correct: { row: PastRow; replaces: string } | (Problem & { stored?: string });
}

export type Ask = <Name extends keyof Replies>(name: Name, data?: object) => Promise<Replies[Name]>;

/** The functions that Gradio makes of the component's server functions. Undefined after any failure. */
export type Server = Record<string, (data: object) => Promise<unknown>>;

/** What is missing in a judgment, and how to lead there. */
export interface Missing {
  message: string;
  focus: () => void;
}
