// Which action a key press means. Buttons show the same keys; everything also works by button.

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

// The Latin letter of a key. With a Korean, Russian ... input method event.key is another letter or "Process":
// then the place of the key counts.
function letterOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[a-z]$/.test(key) || key === "?") return key;
  if (/^Key[A-Z]$/.test(event.code)) return event.code.slice(3).toLowerCase();
  return key;
}

// {answer: attribute, value} or {tool: name}, or null. asked: the attribute that arrows up and down answer, if any.
export function actionOf(event, attributes, { single, asked }) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  const key = letterOf(event);
  const letter = key.length === 1;
  if (letter && !single) return null;
  if (asked && (key === "ArrowUp" || key === "ArrowDown")) return { answer: asked, value: key === "ArrowUp" ? 1 : 0 };
  for (const { name, keys } of attributes) {
    if (key === keys[0]) return { answer: name, value: 1 };
    if (key === keys[1]) return { answer: name, value: 0 };
  }
  return Object.hasOwn(TOOLS, key) ? { tool: TOOLS[key] } : null;
}
