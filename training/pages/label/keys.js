// Which action a key press means. Buttons show the same keys; everything also works by button.

import { keyOf } from "./frame.js";

export const TOOLS = {
  ArrowLeft: "previous",
  ArrowRight: "next",
  Backspace: "undo",
  u: "undo",
  n: "open",
  x: "skip",
  z: "zoom",
  m: "mode",
  "?": "help",
};

// {answer: attribute, value} or {tool: name}, or null. asked: the attribute that arrows up and down answer, if any.
export function actionOf(event, attributes, asked) {
  const key = keyOf(event);
  if (key === null) return null;
  if (asked && (key === "ArrowUp" || key === "ArrowDown")) return { answer: asked, value: key === "ArrowUp" ? 1 : 0 };
  for (const { name, keys } of attributes) {
    if (key === keys[0]) return { answer: name, value: 1 };
    if (key === keys[1]) return { answer: name, value: 0 };
  }
  return Object.hasOwn(TOOLS, key) ? { tool: TOOLS[key] } : null;
}
