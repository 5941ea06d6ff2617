// The labelling page: one picture, its answers, and what was answered last. The server has the truth; this shows it.

import { $, count, fillKeys, make, onKeys, Pace, say, showSaving, start } from "./frame.js";
import { actionOf } from "./keys.js";
import { Saver } from "./saving.js";
import { Zoom } from "./zoom.js";

const AHEAD = 8, RECENT = 7;

let attributes = [], numbers = [], rows = new Map(), skipped = new Set(), revision = 0, table = "";
let at = 0;               // index of the picture shown
let single = sessionStorage.getItem("mode") === "attribute";
let asked = "";           // attribute of the one-by-one mode
let recent = [];          // numbers answered last, newest first
const ahead = new Map();  // number -> Image, loaded before it is shown
const saver = new Saver(showSaving), pace = new Pace(); // answers that finished a picture set the pace
const zoom = new Zoom($("frame"), $("picture"), $("zoom"), [50, 42]);

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
    pace.add();
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
  pace.takeBack();
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
  zoom: () => zoom.set(!zoom.on),
  mode: changeMode,
  help: () => $("keys").showModal(),
};

// View ----------------------------------------------------------------------------------------------------------------

const word = (name, value) => { const one = attributes.find((a) => a.name === name); return value ? one.one : one.zero; };

// looking: the person turned to this picture, so it is shown even when everything is labelled.
function show(looking = false) {
  const number = numbers[at], image = $("picture");
  zoom.set(false);
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
  $("rate").textContent = pace.text(numbers.length - done);
}

function showRecent() {
  const made = recent.map((number) => {
    const labelled = attributes.filter(({ name }) => name in row(number));
    const list = make("ul", {}, ...labelled.map(({ name }) => {
      const value = row(number)[name];
      return make("li", { className: value ? "one" : "zero", textContent: word(name, value) });
    }));
    const text = make("div", {}, make("small", { textContent: number }), list);
    const told = `Back to picture ${number}: ${labelled.map(({ name }) => word(name, row(number)[name])).join(", ")}`;
    const button = make("button", { type: "button", "aria-label": told }, make("img", { src: `image/${number}`, alt: "" }), text);
    button.addEventListener("click", () => { at = numbers.indexOf(number); turn(0); });
    return make("li", {}, button);
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
  fillKeys([...words, ...rest], jump);
  at = 0;
  chooseAsked();
  const first = open(numbers.length - 1).next();
  if (!first.done) at = first.value;
  show();
}

function jump(number) {
  const index = numbers.indexOf(number);
  if (index < 0) return false;
  at = index;
  turn(0);
  return true;
}

function makeQuestion({ name, one, zero, keys }) {
  const set = make("fieldset", {}, make("legend", { textContent: name }), ...[[one, 1, keys[0]], [zero, 0, keys[1]]].map(([text, value, key]) => {
    const words = { type: "button", className: value ? "one" : "zero", "aria-keyshortcuts": key, "aria-label": `${name}: ${text}` };
    const button = make("button", words, make("kbd", { textContent: key.toUpperCase() }), text);
    Object.assign(button.dataset, { name, value });
    button.addEventListener("click", () => answer(name, value));
    return button;
  }));
  set.dataset.name = name;
  return set;
}

function take(changes) {
  const moved = changes.cells.filter(({ number, attribute, value }) => (row(number)[attribute] ?? null) !== value);
  for (const { number, attribute, value } of changes.cells) put(number, attribute, value);
  for (const { number, skipped: put } of changes.skips) put ? skipped.add(number) : skipped.delete(number);
  revision = changes.revision;
  if (moved.length) { show(whole(numbers[at]) && $("done").hidden); say(`Another tab labelled ${count(moved.length, "answer")}.`); }
}

onKeys((event) => {
  const action = zoom.move(event) ? {} : actionOf(event, attributes, asked);
  if (!action) return;
  event.preventDefault();
  if (event.repeat && action.tool !== "previous" && action.tool !== "next") return; // a held key is one answer
  if (action.tool) tools[action.tool]();
  else if (action.answer) answer(action.answer, action.value);
});
for (const [name, act] of Object.entries(tools)) $(name).addEventListener("click", act);
$("picture").addEventListener("error", () => {
  $("broken").textContent = `Picture ${numbers[at]} cannot be shown: the file is damaged or gone. Skip it with X.`;
  $("broken").hidden = false;
});
start(saver, load, () => revision, take);
