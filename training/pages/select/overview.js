// The overview: small pictures of the faces that are kept, dropped or open. A click turns to a face.

import { $, count, make } from "./frame.js";

const LISTS = { keep: "Kept", drop: "Dropped", open: "Open" };

export class Overview {
  // decision(face) is "keep", "drop" or undefined; name(face) its name; turnTo(number) shows it.
  constructor({ decision, name, turnTo }) {
    Object.assign(this, { decision, name, turnTo, on: false, list: "keep" });
  }

  // table: the folder that has the result.
  show(faces, table) {
    $("overview").hidden = !this.on;
    $("gallery").setAttribute("aria-pressed", String(this.on));
    if (!this.on) return;
    const lists = Object.fromEntries(Object.keys(LISTS).map((list) => [list, faces.filter((face) => (this.decision(face) ?? "open") === list)]));
    const finished = !lists.open.length;
    $("overview").querySelector("h2").textContent = finished
      ? `All ${count(faces.length, "face")} are decided` : `${count(lists.keep.length, "face")} kept so far`;
    $("overview").querySelector("p").textContent = finished
      ? `${lists.keep.length ? "The tables of those kept are" : "Nobody is kept: no tables are"} in ${table}. Look them over, or end the server with Ctrl-C.` : "";
    $("lists").replaceChildren(...Object.entries(LISTS).map(([list, text]) => {
      const button = make("button", { type: "button", "aria-pressed": String(list === this.list), textContent: `${text} ${lists[list].length}` });
      button.addEventListener("click", () => { this.list = list; this.show(faces, table); $("lists").querySelector("[aria-pressed=true]").focus(); });
      return button;
    }));
    $("overview").querySelector("ol").replaceChildren(...lists[this.list].map((face) => this.#tile(face)));
  }

  #tile(face) {
    const name = this.name(face);
    const source = face.original ? `image/original/${face.number}` : face.sheet ? `image/sheet/${face.number}` : "";
    const picture = source ? make("img", { src: source, alt: "", loading: "lazy" }) : make("span", { className: "none", textContent: "no picture" });
    const about = [name === face.name ? "" : `case ${face.number}`, face.group ?? ""].filter(Boolean).join(" · ");
    const button = make("button", { type: "button", "aria-label": `Turn to case ${face.number}, ${name}` }, picture,
      make("strong", { textContent: name }), make("small", { textContent: about }));
    button.addEventListener("click", () => this.turnTo(face.number));
    return make("li", {}, button);
  }
}
