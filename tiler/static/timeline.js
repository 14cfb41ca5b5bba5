/* The time bar: slider, ruler, stepping and playing. It owns no state but whether it plays. */

import { byId, element } from "./element.js";
import { instantOf } from "./periods.js";

const THUMB = 16;
const LABEL = 52;
const PACE = 450;

export class Timeline {
  /** `pick(at)` shows a period and resolves when its map is drawn. */
  constructor(pick) {
    this.pick = pick;
    this.periods = null;
    this.at = 0;
    this.playing = false;
    this.bar = byId("timeline");
    this.slider = byId("slider");
    this.ruler = byId("ruler");
    this.label = byId("period");
    this.playButton = byId("play");
    this.slider.addEventListener("input", () => this.#chosen(Number(this.slider.value)));
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    this.playButton.addEventListener("click", () => this.toggle());
    this.label.addEventListener("focus", () => {
      this.label.value = this.periods.id(this.at);
      this.label.select();
    });
    this.label.addEventListener("blur", () => this.#write());
    this.label.addEventListener("keydown", (event) => this.#typed(event));
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("visibilitychange", () => document.hidden && this.stop());
    new ResizeObserver(() => this.#rule()).observe(this.ruler);
  }

  /** Show another axis. */
  over(periods, at) {
    this.stop();
    this.periods = periods;
    this.slider.max = String(periods.length - 1);
    this.bar.hidden = periods.length === 0;
    this.bar.classList.toggle("single", periods.length === 1);
    this.show(at);
    this.#rule();
  }

  /** Show a period as the chosen one. */
  show(at) {
    this.at = at;
    this.slider.value = String(at);
    this.slider.setAttribute("aria-valuetext", this.periods.label(at));
    this.bar.style.setProperty("--share", String(at / Math.max(1, this.periods.length - 1)));
    if (document.activeElement !== this.label) this.#write();
  }

  /** Go on by some periods; past an end it stays there. */
  step(by) {
    const to = Math.min(Math.max(this.at + by, 0), this.periods.length - 1);
    if (to !== this.at) this.#chosen(to);
  }

  toggle() {
    if (this.playing) this.stop();
    else this.#play();
  }

  stop() {
    this.playing = false;
    this.#mark();
  }

  async #play() {
    if (this.playing || this.periods.length < 2) return;
    this.playing = true;
    this.#mark();
    const periods = this.periods;
    while (this.playing && this.periods === periods) {
      const pause = new Promise((go) => setTimeout(go, PACE));
      const drawn = this.pick((this.at + 1) % periods.length, { playing: true });
      await Promise.all([pause, drawn]);
    }
  }

  #chosen(at) {
    this.stop();
    this.pick(at, { playing: false });
  }

  #mark() {
    this.playButton.setAttribute("aria-pressed", String(this.playing));
    this.playButton.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    this.playButton.title = this.playing ? "Pause (space)" : "Play (space)";
  }

  #write() {
    this.label.value = this.periods ? this.periods.label(this.at) : "";
    this.label.classList.remove("wrong");
  }

  #typed(event) {
    if (event.key === "Escape") this.label.blur();
    if (event.key !== "Enter") return;
    const instant = instantOf(this.label.value);
    this.label.classList.toggle("wrong", instant === null);
    if (instant === null) return;
    const at = this.periods.nearest(instant);
    this.label.blur();
    this.#chosen(at);
  }

  #key(event) {
    if (this.bar.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const focused = document.activeElement;
    if (focused?.matches("input:not([type=range]), select, textarea, .maplibregl-canvas")) return;
    // The slider's own keys would do the same, but a year is a better leap than a tenth of the axis.
    const own = focused === this.slider;
    if (focused?.matches("input[type=range]") && !own) return;
    const leap = event.shiftKey ? this.periods.perYear : 1;
    const moves = { ArrowLeft: -leap, ArrowRight: leap, PageDown: -this.periods.perYear, PageUp: this.periods.perYear };
    if (event.key in moves && (own || !event.key.startsWith("Page"))) {
      event.preventDefault();
      this.step(moves[event.key]);
    } else if (event.key === " " && (own || !focused?.matches("button, summary, a"))) {
      event.preventDefault();
      this.toggle();
    }
  }

  /** Labels where a year (or, on short axes, a month or day) begins, and a notch where periods are missing. */
  #rule() {
    const { periods } = this;
    const width = this.ruler.clientWidth - THUMB;
    if (!periods || width <= 0) return;
    const marks = [];
    const last = Math.max(1, periods.length - 1);
    const left = (at) => `${THUMB / 2 + (at / last) * width}px`;
    let room = -Infinity;
    for (const [at, text] of beginnings(periods, Math.max(2, Math.floor(width / LABEL)))) {
      const x = (at / last) * width;
      const tick = element("i", { className: "tick" });
      tick.style.left = left(at);
      marks.push(tick);
      if (x - room < LABEL || x > width - LABEL / 4) continue;
      room = x;
      const label = element("span", {}, text);
      label.style.left = left(at);
      marks.push(label);
    }
    if (periods.length <= 5000) {
      for (let at = 1; at < periods.length; at++) {
        if (periods.follows(at)) continue;
        const notch = element("i", { className: "gap" });
        notch.style.left = left(at - 0.5);
        marks.push(notch);
      }
    }
    this.ruler.replaceChildren(...marks);
  }
}

/** Positions where the first part of the date that changes often enough changes, and what to call them. */
function beginnings(periods, most) {
  const ids = (length) => {
    const found = [];
    let before = null;
    for (let at = 0; at < periods.length; at++) {
      const start = new Date(periods.starts[at]).toISOString().slice(0, length);
      if (start !== before) found.push([at, start]);
      before = start;
    }
    return found;
  };
  const years = ids(4);
  if (years.length >= 3 || periods.unit === "Y") {
    const every = [1, 2, 5, 10, 20, 50, 100].find((n) => years.length / n <= most) ?? 100;
    return years.filter(([at, year]) => Number(year) % every === 0 && (at > 0 || starts(periods)));
  }
  const months = ids(7);
  const format = (options) => (at) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options }).format(periods.starts[at]);
  if (months.length >= 3 || periods.unit === "M") {
    const words = format({ month: "short" });
    const every = Math.ceil(months.length / most);
    return months.filter((_, i) => i % every === 0).map(([at, id]) => [at, id.endsWith("-01") || at === 0 ? `${words(at)} ${id.slice(0, 4)}` : words(at)]);
  }
  const days = ids(10);
  const every = Math.ceil(days.length / most);
  const words = format({ day: "numeric", month: "short" });
  return days.filter((_, i) => i % every === 0).map(([at]) => [at, words(at)]);
}

/** Whether the axis starts with a year, so that a label at its first period is true. */
function starts(periods) {
  return new Date(periods.starts[0]).getUTCMonth() === 0;
}
