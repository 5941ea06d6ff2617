// Which tool a key press means. Buttons show the same keys; everything also works by button.

import { keyOf } from "./frame.js";

const KEYS = {
  ArrowRight: "keep",
  k: "keep",
  ArrowLeft: "drop",
  d: "drop",
  ArrowUp: "previous",
  p: "previous",
  ArrowDown: "next",
  n: "open",
  Backspace: "undo",
  u: "undo",
  r: "name",
  z: "zoom",
  o: "gallery",
  Escape: "leave",
  "?": "help",
};
// The overview scrolls by arrows, and nothing is decided about a face that is out of sight.
const IN_OVERVIEW = new Set(["open", "undo", "gallery", "leave", "help"]);

export const ROWS = [
  [["K", "→"], "keep, and go to the next open face"],
  [["D", "←"], "drop, and go to the next open face"],
  [["U", "Backspace"], "undo your last decision or name"],
  [["P", "↑"], "look back"],
  [["↓"], "look forward"],
  [["N"], "next open face"],
  [["R"], "name the face (Enter saves, Esc leaves it)"],
  [["O"], "overview of the faces that are kept, dropped, open"],
  [["Z"], "zoom (or click; Shift and arrows move it)"],
];

// The name of a tool, or null.
export function toolOf(event, overview) {
  const key = keyOf(event);
  if (key === null || !Object.hasOwn(KEYS, key)) return null;
  return overview && !IN_OVERVIEW.has(KEYS[key]) ? null : KEYS[key];
}
