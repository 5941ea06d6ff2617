// The labelling page: one picture, its answers, and what was answered last. The server has the truth; this shows it.

import { actionOf } from "./keys.js";
import { Saver } from "./saving.js";

const POLL_MS = 3000, AHEAD = 8, RECENT = 7, PAUSE_MS = 30000, RATED = 30;
const $ = (id) => document.getElementById(id);
const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

let attributes = [], numbers = [], rows = new Map(), skipped = new Set(), revision = 0, table = "";
let at = 0;               // index of the picture shown
let single = sessionStorage.getItem("mode") === "attribute";
let asked = "";           // attribute of the one-by-one mode
let recent = [];          // numbers answered last, newest first
let completed = [];       // times of the last answers that finished a picture
let shortcuts = sessionStorage.getItem("shortcuts") !== "off";
let zoomed = false, origin = [50, 42];
const ahead = new Map();  // number -> Image, loaded before it is shown
const saver = new Saver(showSaving);

// What is open --------------------------------------------------------------------------------------------------------

const row = (number) => rows.get(number) ?? rows.set(number, {}).get(number);
const whole = (number) => attributes.every(({ name }) => name in row(number));
const needs = (number) => (single ? !(asked in row(number)) : !whole(number));

// Indices of open pictures after `from`, those that were skipped last.
function* open(from) {
  for (const late of [false, true]) {
    for (let step = 1; step <= numbers.length; step++) {
      const index = (from + step) % numbers.length, number = numbers[index];
      if (needs(number) && skipped.has(number) === late) yield index;
    }
  }
}

// One attribute at a time: when nobody is left without it, the next one is asked.
function chooseAsked() {
  if (!single) { asked = ""; return; }
  const left = ({ name }) => numbers.some((number) => !(name in row(number)));
  if (!asked || !attributes.some((one) => one.name === asked && left(one))) {
    asked = (attributes.find(left) ?? attributes[0]).name;
  }
}

// Actions -------------------------------------------------------------------------------------------------------------

function answer(name, value) {
  const number = numbers[at];
  if (saver.problem) { say(saver.problem); return; }
  if (!$("done").hidden) return;
  const open = needs(number);
  row(number)[name] = value;
  saver.send("api/label", { order: saver.order(), number, attribute: name, value, seen: revision }).then((change) => {
    if (change.foreign) say(`Another tab had labelled ${name} of picture ${number} otherwise; your answer counts.`);
  }).catch((error) => { say(error.message); load(); });
  recent = [number, ...recent.filter((one) => one !== number)].slice(0, RECENT);
  if (whole(number)) skipped.delete(number);
  const told = `Picture ${number}: ${name} ${word(name, value)}.`;
  if (open && !needs(number)) {
    completed = [...completed, Date.now()].slice(-RATED);
    forward(told);
  } else {
    show();
    say(told);
  }
}

function forward(told = "") {
  const before = asked;
  chooseAsked();
  const next = open(at).next();
  if (!next.done) at = next.value;
  show();
  const question = asked && asked !== before ? ` Now ${asked}.` : "";
  say(next.done ? `${told} All pictures are labelled.` : `${told}${question} Picture ${numbers[at]}.`);
}

async function undo() {
  await saver.idle();
  const { change } = await saver.send("api/undo", {});
  if (!change) { say("Nothing to undo."); return; }
  put(change.number, change.attribute, change.value);
  at = numbers.indexOf(change.number);
  if (single) asked = change.attribute;
  completed.pop();
  show();
  say(`Undone: ${change.attribute} of picture ${change.number} is ${change.value === null ? "open" : word(change.attribute, change.value)}.`);
}

function skip() {
  const number = numbers[at];
  if (!needs(number)) { forward(); return; }
  skipped.add(number);
  saver.send("api/skip", { number, skipped: true }).catch((error) => say(error.message));
  forward(`Picture ${number} skipped; it comes again at the end.`);
}

function turn(step) {
  at = Math.min(numbers.length - 1, Math.max(0, at + step));
  show(true);
  const texts = attributes.filter(({ name }) => name in row(numbers[at])).map(({ name }) => `${name} ${word(name, row(numbers[at])[name])}`);
  say(`Picture ${numbers[at]}: ${texts.join(", ") || "open"}.`);
}

function changeMode() {
  single = !single;
  sessionStorage.setItem("mode", single ? "attribute" : "picture");
  asked = "";
  chooseAsked();
  if (!needs(numbers[at])) forward();
  else show();
  say(single ? `One attribute at a time: ${asked}.` : "All attributes of a picture together.");
}

const tools = {
  previous: () => turn(-1),
  next: () => turn(1),
  open: () => forward(),
  undo: () => undo().catch((error) => say(error.message)),
  skip,
  zoom: () => zoom(!zoomed),
  mode: changeMode,
  help: () => $("keys").showModal(),
};

// View ----------------------------------------------------------------------------------------------------------------

const word = (name, value) => { const one = attributes.find((a) => a.name === name); return value ? one.one : one.zero; };
const say = (text) => { $("live").textContent = text; };

// looking: the person turned to this picture, so it is shown even when everything is labelled.
function show(looking = false) {
  const number = numbers[at], image = $("picture");
  zoom(false);
  const source = `image/${number}`;
  if (image.getAttribute("src") !== source) { $("broken").hidden = true; image.src = source; }
  image.alt = `Picture ${number}`;
  const labelled = numbers.filter(whole).length;
  const finished = labelled === numbers.length;
  $("number").textContent = `${number}${skipped.has(number) ? " · skipped" : ""}${looking && whole(number) ? " · labelled" : ""}`;
  $("done").hidden = !finished || looking;
  $("done").querySelector("h2").textContent = `All ${count(numbers.length, "picture")} are labelled`;
  $("done").querySelector("p").textContent = `They are in ${table}. Look them over with ← and →, or end the server with Ctrl-C.`;
  for (const button of $("answers").querySelectorAll("button")) {
    const { name, value } = button.dataset;
    button.setAttribute("aria-pressed", String(row(number)[name] === Number(value) && $("done").hidden));
  }
  $("answers").classList.toggle("single", single);
  for (const set of $("answers").children) set.classList.toggle("asked", set.dataset.name === asked);
  $("mode").lastElementChild.textContent = single ? "Whole picture" : "One attribute";
  $("previous").disabled = at === 0;
  $("next").disabled = at === numbers.length - 1;
  showProgress(labelled);
  showRecent();
  preload();
}

function showProgress(labelled) {
  // In the one-by-one mode the answers of the attribute that is asked are what moves.
  const done = single ? numbers.filter((number) => asked in row(number)).length : labelled;
  $("bar").max = numbers.length;
  $("bar").value = done;
  const put = [...skipped].filter((number) => !whole(number)).length;
  $("count").textContent = `${done.toLocaleString("en")} of ${numbers.length.toLocaleString("en")}${single ? ` · ${asked}` : ""}${put ? ` · ${put} skipped` : ""}`;
  const steps = completed.slice(1).map((time, i) => time - completed[i]).filter((gap) => gap < PAUSE_MS);
  if (steps.length < 3) { $("rate").textContent = ""; return; }
  const mean = steps.reduce((a, b) => a + b) / steps.length;
  const minutes = Math.ceil(((numbers.length - done) * mean) / 60000);
  $("rate").textContent = `${Math.round(60000 / mean)} a minute · ${minutes < 1 ? "done soon" : minutes < 90 ? `${minutes} min left` : `${(minutes / 60).toFixed(1)} h left`}`;
}

function showRecent() {
  const made = recent.map((number) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
    const text = document.createElement("div"), name = document.createElement("small"), list = document.createElement("ul");
    image.src = `image/${number}`;
    image.alt = "";
    name.textContent = number;
    for (const { name: attribute } of attributes) {
      if (!(attribute in row(number))) continue;
      const entry = document.createElement("li");
      entry.className = row(number)[attribute] ? "one" : "zero";
      entry.textContent = word(attribute, row(number)[attribute]);
      list.append(entry);
    }
    text.append(name, list);
    button.append(image, text);
    button.type = "button";
    button.setAttribute("aria-label", `Back to picture ${number}: ${[...list.children].map((one) => one.textContent).join(", ")}`);
    button.addEventListener("click", () => { at = numbers.indexOf(number); turn(0); });
    item.append(button);
    return item;
  });
  $("recent").querySelector("ol").replaceChildren(...made);
  $("recent").querySelector("h2").hidden = !made.length;
}

function preload() {
  const wanted = [];
  for (const index of open(at)) if (wanted.push(numbers[index]) >= AHEAD) break;
  for (const number of ahead.keys()) if (!wanted.includes(number)) ahead.delete(number);
  for (const number of wanted) {
    if (ahead.has(number)) continue;
    const image = new Image();
    image.src = `image/${number}`;
    ahead.set(number, image);
  }
}

function zoom(on, [x, y] = origin) {
  zoomed = on;
  $("frame").classList.toggle("zoomed", on);
  $("picture").style.transformOrigin = `${x}% ${y}%`;
  $("zoom").setAttribute("aria-pressed", String(on));
}

function showSaving({ waiting, problem }) {
  $("saved").textContent = problem ? "Not saved" : waiting ? "Saving …" : "Saved";
  $("saved").className = problem ? "failed" : waiting ? "waiting" : "";
  $("problem").hidden = !problem;
  $("problem").textContent = problem;
}

// Start and other tabs ------------------------------------------------------------------------------------------------

function put(number, name, value) {
  if (value === null) delete row(number)[name];
  else row(number)[name] = value;
}

async function load() {
  const state = await (await fetch("api/state")).json();
  ({ attributes, numbers, revision, out: table } = state);
  rows = new Map(Object.entries(state.rows).map(([number, labels]) => [Number(number), labels]));
  skipped = new Set(state.skipped);
  document.title = `Label ${table}`;
  $("answers").replaceChildren(...attributes.map(makeQuestion));
  const words = attributes.map(({ name, one, zero, keys }) => [keys, `${name}: ${one} / ${zero}`]);
  const rest = [[["U", "Backspace"], "undo your last answer"], [["←", "→"], "look back and forward"], [["N"], "next open picture"],
    [["X"], "skip; skipped pictures come at the end"], [["Z"], "zoom (or click; Shift and arrows move it)"],
    [["M"], "all attributes of a picture, or one attribute for all pictures"], [["↑", "↓"], "upper and lower answer, one attribute at a time"]];
  $("keys").querySelector("tbody").replaceChildren(...[...words, ...rest].map(makeKeyRow));
  at = 0;
  chooseAsked();
  const first = open(numbers.length - 1).next();
  if (!first.done) at = first.value;
  show();
  saver.tell();
}

function makeQuestion({ name, one, zero, keys }) {
  const set = document.createElement("fieldset"), legend = document.createElement("legend");
  legend.textContent = name;
  set.dataset.name = name;
  set.append(legend, ...[[one, 1, keys[0]], [zero, 0, keys[1]]].map(([text, value, key]) => {
    const button = document.createElement("button"), cap = document.createElement("kbd");
    button.type = "button";
    button.className = value ? "one" : "zero";
    button.dataset.name = name;
    button.dataset.value = value;
    button.setAttribute("aria-keyshortcuts", key);
    button.setAttribute("aria-label", `${name}: ${text}`);
    cap.textContent = key.toUpperCase();
    button.append(cap, text);
    button.addEventListener("click", () => answer(name, value));
    return button;
  }));
  return set;
}

function makeKeyRow([keys, text]) {
  const line = document.createElement("tr"), caps = document.createElement("td"), what = document.createElement("td");
  caps.append(...keys.flatMap((key) => { const cap = document.createElement("kbd"); cap.textContent = key.length === 1 ? key.toUpperCase() : key; return [cap, " "]; }));
  what.textContent = text;
  line.append(caps, what);
  return line;
}

async function poll() {
  try {
    const response = await fetch(`api/changes?since=${revision}`);
    const changes = await response.json();
    if (!response.ok) throw new Error(changes.error);
    if (saver.waiting.size) return; // what is under way would be seen as it was before
    saver.problem = "";
    const moved = changes.cells.filter(({ number, attribute, value }) => (row(number)[attribute] ?? null) !== value);
    for (const { number, attribute, value } of changes.cells) put(number, attribute, value);
    for (const { number, skipped: put } of changes.skips) put ? skipped.add(number) : skipped.delete(number);
    revision = changes.revision;
    if (moved.length) { show(whole(numbers[at]) && $("done").hidden); say(`Another tab labelled ${count(moved.length, "answer")}.`); }
  } catch {
    saver.problem = "The server does not answer. What you see is saved; start the same command again and open the address it prints.";
  }
  saver.tell();
}

document.addEventListener("keydown", (event) => {
  if ($("keys").open || event.target.matches("input")) return;
  if (zoomed && event.shiftKey && event.key.startsWith("Arrow")) {
    const step = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
    origin = origin.map((value, i) => Math.min(100, Math.max(0, value + step[i])));
    zoom(true);
    event.preventDefault();
    return;
  }
  const action = actionOf(event, attributes, { single: shortcuts, asked });
  if (!action) return;
  event.preventDefault();
  if (event.repeat && action.tool !== "previous" && action.tool !== "next") return; // a held key is one answer
  if (action.tool) tools[action.tool]();
  else answer(action.answer, action.value);
});
for (const [name, act] of Object.entries(tools)) $(name).addEventListener("click", act);
$("picture").addEventListener("click", (event) => {
  const box = event.target.getBoundingClientRect();
  if (!zoomed) origin = [(100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height];
  zoom(!zoomed);
});
$("picture").addEventListener("error", () => {
  $("broken").textContent = `Picture ${numbers[at]} cannot be shown: the file is damaged or gone. Skip it with X.`;
  $("broken").hidden = false;
});
$("close").addEventListener("click", () => $("keys").close());
$("single").checked = shortcuts;
$("single").addEventListener("change", (event) => {
  shortcuts = event.target.checked;
  sessionStorage.setItem("shortcuts", shortcuts ? "on" : "off");
});
$("jump").addEventListener("submit", (event) => {
  event.preventDefault();
  const index = numbers.indexOf(Number($("jump-number").value));
  if (index < 0) { say(`There is no picture ${$("jump-number").value}.`); return; }
  at = index;
  $("keys").close();
  turn(0);
});
addEventListener("beforeunload", (event) => { if (saver.waiting.size) event.preventDefault(); });
load().then(() => setInterval(poll, POLL_MS), (error) => { saver.problem = `The page cannot be loaded: ${error.message}`; saver.tell(); });
