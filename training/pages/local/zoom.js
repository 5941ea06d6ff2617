// A picture that a click or a key enlarges; Shift and arrows move it.

const STEP = 10;
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

export class Zoom {
  // frame: cuts the picture off; button: shows whether it is enlarged; origin: point in % that stays, until a click.
  constructor(frame, picture, button, origin) {
    Object.assign(this, { frame, picture, button, origin, on: false });
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      if (!this.on) this.origin = [(100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height];
      this.set(!this.on);
    });
  }

  set(on) {
    this.on = on;
    this.frame.classList.toggle("zoomed", on);
    this.picture.style.transformOrigin = `${this.origin[0]}% ${this.origin[1]}%`;
    this.button.setAttribute("aria-pressed", String(on));
  }

  // True when this key press moved the picture.
  move(event) {
    if (!this.on || !event.shiftKey || !MOVES[event.key]) return false;
    this.origin = this.origin.map((value, i) => Math.min(100, Math.max(0, value + MOVES[event.key][i])));
    this.set(true);
    return true;
  }
}
