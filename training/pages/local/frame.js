// What stands around every page: saving and its errors, other tabs, the dialog of keys, how fast it goes.

const POLL_MS = 3000, PAUSE_MS = 30000, RATED = 30;

export const $ = (id) => document.getElementById(id);
export const say = (text) => { $("live").textContent = text; };
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

// An element with these properties (a name with a dash is an attribute) and children.
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

// Saving --------------------------------------------------------------------------------------------------------------

export function showSaving({ waiting, problem }) {
  $("saved").textContent = problem ? "Not saved" : waiting ? "Saving …" : "Saved";
  $("saved").className = problem ? "failed" : waiting ? "waiting" : "";
  $("problem").hidden = !problem;
  $("problem").textContent = problem;
}

// Loads the page, then hands over what other tabs changed since revision().
export function start(saver, load, revision, take) {
  const poll = async () => {
    try {
      const response = await fetch(`api/changes?since=${revision()}`);
      const changes = await response.json();
      if (!response.ok) throw new Error(changes.error);
      if (saver.waiting.size) return; // what is under way would be seen as it was before
      saver.problem = "";
      take(changes);
    } catch {
      saver.problem = "The server does not answer. What you see is saved; start the same command again and open the address it prints.";
    }
    saver.tell();
  };
  addEventListener("beforeunload", (event) => { if (saver.waiting.size) event.preventDefault(); });
  load().then(() => { saver.tell(); setInterval(poll, POLL_MS); }, (error) => {
    saver.problem = `The page cannot be loaded: ${error.message}`;
    saver.tell();
  });
}

// Keys ----------------------------------------------------------------------------------------------------------------

let shortcuts = sessionStorage.getItem("shortcuts") !== "off";

// What a key is called in a page's tables: the Latin letter, or the name of the key. With a Korean, Russian ... input
// method event.key is another letter or "Process": then the place of the key counts. Letters that the person switched
// off and combinations with Ctrl, Alt and Meta are null.
export function keyOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  let key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!/^[a-z]$/.test(key) && key !== "?" && /^Key[A-Z]$/.test(event.code)) key = event.code.slice(3).toLowerCase();
  return key.length === 1 && !shortcuts ? null : key;
}

// act(event) for every key press that is not for the dialog or an input field.
export function onKeys(act) {
  document.addEventListener("keydown", (event) => {
    if (!$("keys").open && !event.target.matches("input")) act(event);
  });
}

// The dialog of keys: rows [[keys], text] of its table; jump(number) goes there and is false where there is none.
export function fillKeys(rows, jump) {
  $("keys").querySelector("tbody").replaceChildren(...rows.map(([keys, text]) => {
    const caps = keys.flatMap((key) => [make("kbd", { textContent: key.length === 1 ? key.toUpperCase() : key }), " "]);
    return make("tr", {}, make("td", {}, ...caps), make("td", { textContent: text }));
  }));
  $("close").onclick = () => $("keys").close();
  $("single").checked = shortcuts;
  $("single").onchange = (event) => {
    shortcuts = event.target.checked;
    sessionStorage.setItem("shortcuts", shortcuts ? "on" : "off");
  };
  $("jump").onsubmit = (event) => {
    event.preventDefault();
    const text = $("jump-number").value.trim();
    if (/^[0-9]+$/.test(text) && jump(Number(text))) $("keys").close();
    else say(`There is no number ${text}.`);
  };
}

// How fast it goes, from the times of the last answers; breaks do not count. -------------------------------------------

export class Pace {
  constructor() { this.times = []; }
  add() { this.times = [...this.times, Date.now()].slice(-RATED); }
  takeBack() { this.times.pop(); }
  text(left) {
    const steps = this.times.slice(1).map((time, i) => time - this.times[i]).filter((gap) => gap < PAUSE_MS);
    if (steps.length < 3) return "";
    const mean = steps.reduce((a, b) => a + b) / steps.length;
    const minutes = Math.ceil((left * mean) / 60000);
    return `${Math.round(60000 / mean)} a minute · ${minutes < 1 ? "done soon" : minutes < 90 ? `${minutes} min left` : `${(minutes / 60).toFixed(1)} h left`}`;
  }
}
