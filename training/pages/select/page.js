// The selection page: one face, the pictures of its direction test, and a decision. The server has the truth.

import { $, count, fillKeys, make, onKeys, Pace, say, showSaving, start } from "./frame.js";
import { ROWS, toolOf } from "./keys.js";
import { Overview } from "./overview.js";
import { Saver } from "./saving.js";
import { Zoom } from "./zoom.js";

const AHEAD = 4;
const DONE = { keep: "kept", drop: "dropped" };
const PATHS = { decision: "api/decide", name: "api/name" };

let faces = [], rows = new Map(), revision = 0, table = "", grids = "";
let at = 0;               // index of the face shown
const ahead = new Map();  // address -> Image, loaded before it is shown
const saver = new Saver(showSaving), pace = new Pace();
const zoom = new Zoom($("frame"), $("picture"), $("zoom"), [50, 50]);
const overview = new Overview({ decision: (face) => row(face).decision, name: nameOf, turnTo: (number) => jump(number) });

// What is open --------------------------------------------------------------------------------------------------------

const row = ({ number }) => rows.get(number) ?? rows.set(number, {}).get(number);
function nameOf(face) { return row(face).name ?? face.name; }
const indexOf = (number) => faces.findIndex((face) => face.number === number);

// Indices of open faces after `from`.
function* open(from) {
  for (let step = 1; step <= faces.length; step++) {
    const index = (from + step) % faces.length;
    if (!row(faces[index]).decision) yield index;
  }
}

// Actions -------------------------------------------------------------------------------------------------------------

function put(face, attribute, value) {
  if (value === null) delete row(face)[attribute];
  else row(face)[attribute] = value;
}

function save(face, attribute, value) {
  put(face, attribute, value);
  const body = { order: saver.order(), number: face.number, value, seen: revision };
  return saver.send(PATHS[attribute], body).then((change) => {
    put(face, attribute, change.value);
    if (change.foreign) say(`Another tab had changed case ${face.number} otherwise; yours counts.`);
  });
}

function decide(value) {
  const face = faces[at], wasOpen = !row(face).decision;
  if (saver.problem) { say(saver.problem); return; }
  save(face, "decision", value).catch((error) => { say(error.message); load(); });
  const told = `${nameOf(face)} ${DONE[value]}.`;
  if (!wasOpen) { show(); say(told); return; }
  pace.add();
  forward(told);
}

function rename() {
  const face = faces[at], before = row(face).name ?? null, value = $("name").value.trim() || null;
  if (value === before || (value === face.name && before === null)) { show(); return; }
  if (saver.problem) { say(saver.problem); return; }
  $("name-problem").textContent = "";
  save(face, "name", value).then(() => { show(); say(`Case ${face.number} is named ${nameOf(face)}.`); }, (error) => {
    put(face, "name", before);
    saver.problem = ""; // the field tells it
    saver.tell();
    if (faces[at] === face) { $("name").setAttribute("aria-invalid", "true"); $("name-problem").textContent = error.message; $("name").focus(); }
    else say(error.message);
  });
}

function forward(told = "") {
  const next = open(at).next();
  if (!next.done) at = next.value;
  gallery(next.done);
  say(next.done ? `${told} All faces are decided.` : `${told} ${described(faces[at])}`);
}

async function undo() {
  await saver.idle();
  const { change } = await saver.send("api/undo", {});
  if (!change) { say("Nothing to undo."); return; }
  const index = indexOf(change.number);
  if (index < 0) return;
  at = index;
  put(faces[at], change.attribute, change.value);
  if (change.attribute === "decision") pace.takeBack();
  gallery(false);
  say(`Undone: ${described(faces[at])}`);
}

function turn(step) {
  at = Math.min(faces.length - 1, Math.max(0, at + step));
  gallery(false);
  say(described(faces[at]));
}

function jump(number) {
  const index = indexOf(number);
  if (index < 0) return false;
  at = index;
  turn(0);
  return true;
}

function gallery(on) {
  const focused = $("overview").contains(document.activeElement);
  overview.on = on;
  show();
  if (on) $("lists").querySelector("[aria-pressed=true]").focus();
  else if (focused) $("keep").focus({ focusVisible: false });
}

const tools = {
  keep: () => decide("keep"),
  drop: () => decide("drop"),
  previous: () => turn(-1),
  next: () => turn(1),
  open: () => forward(),
  undo: () => undo().catch((error) => { saver.problem = ""; saver.tell(); say(error.message); }),
  zoom: () => zoom.set(!zoom.on),
  gallery: () => gallery(!overview.on),
  leave: () => (overview.on ? gallery(false) : zoom.set(false)),
  name: () => { $("name").focus(); $("name").select(); },
  help: () => $("keys").showModal(),
};

// View ----------------------------------------------------------------------------------------------------------------

const figure = (value, digits) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));

function described(face) {
  const state = row(face).decision ? `, ${DONE[row(face).decision]}` : "";
  const values = Object.entries(face.correlations).map(([name, value]) => `${name} ${figure(value, 2)}`);
  return `Case ${face.number}${nameOf(face) === face.name ? "" : ` ${nameOf(face)}`}${state}: ${values.join(", ")}.`;
}

function show() {
  const face = faces[at], decision = row(face).decision;
  zoom.set(false);
  showPicture($("picture"), face.sheet ? `image/sheet/${face.number}` : "", `Test pictures of case ${face.number}`);
  showPicture($("original"), face.original ? `image/original/${face.number}` : "", `Case ${face.number}, unchanged`);
  $("broken").hidden = face.sheet;
  $("broken").textContent = `There is no sheet of case ${face.number} in ${grids}.`;
  $("no-original").hidden = face.original;
  $("no-original").textContent = "no picture";
  $("case").textContent = `Case ${face.number}`;
  $("marks").replaceChildren(...[
    face.group && make("span", { textContent: face.group, title: "direction group" }),
    !face.passed && make("span", { textContent: "not passed" }),
    decision && make("span", { className: decision, textContent: DONE[decision] }),
  ].filter(Boolean));
  if (document.activeElement !== $("name")) showName();
  showFacts(face);
  showCaptions(face);
  $("keep").setAttribute("aria-pressed", String(decision === "keep"));
  $("drop").setAttribute("aria-pressed", String(decision === "drop"));
  $("previous").disabled = overview.on || at === 0;
  $("next").disabled = overview.on || at === faces.length - 1;
  $("zoom").disabled = overview.on || !face.sheet;
  $("face").hidden = $("work").hidden = overview.on;
  overview.show(faces, table);
  showProgress();
  preload();
}

function showPicture(image, source, text) {
  image.hidden = !source;
  image.alt = text;
  if (!source) image.removeAttribute("src");
  else if (image.getAttribute("src") !== source) image.src = source;
}

function showName() {
  $("name").value = row(faces[at]).name ?? "";
  $("name").placeholder = faces[at].name;
  $("name").removeAttribute("aria-invalid");
  $("name-problem").textContent = "";
}

function showFacts({ correlations, sum, leakage }) {
  const short = (name) => name.replace(/_?leakage_?/i, "").replaceAll("_", " ") || "all"; // the heading says the word
  const lines = [["Correlation", correlations, 4], ["Leakage", leakage, 3]].filter(([, values]) => Object.keys(values).length);
  $("facts").replaceChildren(...lines.map(([title, values, digits]) => {
    const list = Object.entries(values).map(([name, value]) => {
      const bar = make("span", { className: "bar", "aria-hidden": "true" });
      bar.style.setProperty("--value", Math.min(1, Math.abs(value ?? 0)));
      return make("div", {}, make("dt", { textContent: short(name) }), bar, make("dd", { textContent: figure(value, digits) }));
    });
    return make("dl", {}, make("h3", { textContent: title }), ...list);
  }));
  $("facts").firstElementChild.append(make("div", { className: "sum" }, make("dt", { textContent: "sum" }), make("dd", { textContent: figure(sum, 4) })));
}

// Low strengths stand first. Published directions close eyes and mouth; those by gradient open them: the sign tells.
function showCaptions({ correlations: { eyes, mouth } }) {
  for (const [name, value] of [["eyes", eyes], ["mouth", mouth]]) {
    const [low, high] = value === null || value === 0 ? ["low", "high"] : value < 0 ? ["open", "closed"] : ["closed", "open"];
    const rest = name === "eyes" ? " · pose strength rises →" : "";
    $(`${name}-low`).textContent = `${name} ${low}${rest}`;
    $(`${name}-high`).textContent = `${name} ${high}${rest}`;
  }
}

function showProgress() {
  const decided = faces.filter((face) => row(face).decision).length;
  const kept = faces.filter((face) => row(face).decision === "keep").length;
  $("bar").max = faces.length;
  $("bar").value = decided;
  $("count").textContent = `${decided.toLocaleString("en")} of ${faces.length.toLocaleString("en")} · ${kept} kept`;
  $("rate").textContent = pace.text(faces.length - decided);
}

function preload() {
  const wanted = [];
  for (const index of open(at)) {
    const { number, sheet, original } = faces[index];
    if (sheet) wanted.push(`image/sheet/${number}`);
    if (original) wanted.push(`image/original/${number}`);
    if (wanted.length >= 2 * AHEAD) break;
  }
  for (const source of ahead.keys()) if (!wanted.includes(source)) ahead.delete(source);
  for (const source of wanted) if (!ahead.has(source)) ahead.set(source, Object.assign(new Image(), { src: source }));
}

// Start and other tabs ------------------------------------------------------------------------------------------------

async function load() {
  const state = await (await fetch("api/state")).json();
  ({ faces, revision, out: table, grids } = state);
  rows = new Map(Object.entries(state.rows).map(([number, values]) => [Number(number), values]));
  document.title = `Select faces · ${table}`;
  fillKeys(ROWS, jump);
  const first = open(faces.length - 1).next();
  at = first.done ? 0 : first.value;
  gallery(first.done);
}

function take(changes) {
  const known = changes.cells.filter(({ number }) => indexOf(number) >= 0);
  const moved = known.filter(({ number, attribute, value }) => (row({ number })[attribute] ?? null) !== value);
  for (const { number, attribute, value } of known) put({ number }, attribute, value);
  revision = changes.revision;
  if (moved.length) { show(); say(`Another tab made ${count(moved.length, "decision")}.`); }
}

onKeys((event) => {
  if (zoom.move(event)) { event.preventDefault(); return; }
  const tool = toolOf(event, overview.on);
  if (!tool) return;
  event.preventDefault();
  if (event.repeat && tool !== "previous" && tool !== "next") return; // a held key is one decision
  tools[tool]();
});
for (const [name, act] of Object.entries(tools)) if (!["leave", "name"].includes(name)) $(name).addEventListener("click", act);
$("rename").addEventListener("submit", (event) => { event.preventDefault(); $("name").blur(); });
$("name").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  showName();
  $("name").blur();
});
$("name").addEventListener("change", () => rename());
$("picture").addEventListener("load", ({ target }) => $("sheet").style.setProperty("--ratio", target.naturalWidth / target.naturalHeight));
$("picture").addEventListener("error", () => {
  $("picture").hidden = true;
  $("broken").textContent = `The sheet of case ${faces[at].number} cannot be shown: the file is damaged or gone.`;
  $("broken").hidden = false;
});
$("original").addEventListener("error", () => { $("original").hidden = true; $("no-original").hidden = false; });
start(saver, load, () => revision, take);
