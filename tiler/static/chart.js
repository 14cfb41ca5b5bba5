/* A series as a line, with the band of its uncertainty and the chosen period marked. */

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { number, unit } from "./units.js";

const FONT = "11px system-ui, sans-serif";

export class Chart {
  /** `pick(at)`: somebody chose a period; `hover(at | null)`: the pointer is over one. */
  constructor(box, { pick, hover }) {
    this.box = box;
    this.pick = pick;
    this.hover = hover;
    this.plot = null;
    this.at = 0;
    new ResizeObserver(() => this.#fit()).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.given && this.draw(this.given));
  }

  /** Draw a series over `periods`: `values` and `spread` (or null) hold a number or null for each period. */
  draw(given) {
    this.given = given;
    this.clear();
    const { periods, values, spread, variable, decimals } = given;
    const [rows, at] = withGaps(periods, values, spread);
    this.rowOf = new Int32Array(periods.length);
    at.forEach((position, row) => position >= 0 && (this.rowOf[position] = row));
    const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: ink("--muted"), font: FONT, grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false }, gap: 6 };
    const series = [{}, { stroke: ink("--accent"), width: 1.6, points: { size: 5, fill: ink("--accent"), width: 0, show: true, filter: () => alone(rows[1]) } }];
    if (spread) series.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
    const options = {
      width: this.box.clientWidth,
      height: this.box.clientHeight,
      padding: [6, 12, 0, 0],
      legend: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false, dist: 6 } },
      scales: { x: { time: true } },
      series,
      bands: spread ? [{ series: [3, 2], fill: ink("--band") }] : [],
      axes: [
        { ...axis, grid: { show: false }, space: 56, size: (_, labels) => (labels?.some((label) => label.includes("\n")) ? 40 : 24), gap: 4, values: TIMES },
        {
          ...axis,
          size: (_, labels) => 14 + Math.max(12, ...(labels ?? []).map((label) => label.length * 6.3)),
          values: (_, splits) => splits.map((value) => number(value, Math.max(0, decimalsOf(splits)))),
        },
      ],
      hooks: {
        setCursor: [(plot) => this.hover(plot.cursor.idx === null || plot.cursor.idx === undefined ? null : at[plot.cursor.idx] ?? null)],
        draw: [(plot) => this.#rule(plot, ink("--ink"), ink("--paper-solid"))],
      },
    };
    this.plot = new uPlot(options, rows, this.box);
    this.plot.over.addEventListener("click", () => {
      const row = this.plot.cursor.idx;
      if (this.plot.select.width > 0 || row === null || row === undefined || at[row] < 0) return;
      this.pick(at[row]);
    });
    this.box.setAttribute("aria-label", spoken(given, decimals, variable));
  }

  /** Mark a period as the chosen one. */
  mark(at) {
    this.at = at;
    this.plot?.redraw(false, false);
  }

  clear() {
    this.plot?.destroy();
    this.plot = null;
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (this.plot && width > 0 && height > 0) this.plot.setSize({ width, height });
  }

  #rule(plot, colour, halo) {
    const row = this.rowOf[this.at];
    const x = plot.valToPos(plot.data[0][row], "x", true);
    const { left, top, width, height } = plot.bbox;
    if (!(x >= left - 1 && x <= left + width + 1)) return;
    const { ctx } = plot;
    const scale = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.globalAlpha = 0.45;
    ctx.lineWidth = scale;
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    ctx.globalAlpha = 1;
    const value = plot.data[1][row];
    if (value !== null && value !== undefined) {
      ctx.beginPath();
      ctx.arc(x, plot.valToPos(value, "y", true), 4 * scale, 0, 2 * Math.PI);
      ctx.fillStyle = colour;
      ctx.strokeStyle = halo;
      ctx.lineWidth = 1.5 * scale;
      ctx.fill();
      ctx.stroke();
    }
    ctx.restore();
  }
}

const YEAR = 31_536_000;
const MONTH = 2_592_000;
const DAY = 86_400;
const TIMES = [
  [YEAR, "{YYYY}", null, null, null, null, null, null, 1],
  [MONTH, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [DAY, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
];

/** Rows for uPlot, with an empty row wherever periods are missing, and the period of each row (-1: none). */
function withGaps(periods, values, spread) {
  const times = [];
  const middle = [];
  const high = [];
  const low = [];
  const at = [];
  const add = (time, position, value, width) => {
    times.push(time / 1000);
    at.push(position);
    middle.push(value);
    high.push(value === null || width === null ? null : value + width);
    low.push(value === null || width === null ? null : value - width);
  };
  for (let i = 0; i < periods.length; i++) {
    if (!periods.follows(i)) add(periods.end(i - 1), -1, null, null);
    add(periods.starts[i], i, values[i] ?? null, spread ? (spread[i] ?? null) : null);
  }
  return [spread ? [times, middle, low, high] : [times, middle], at];
}

/** Rows whose value stands between missing ones, which a line would not show. */
function alone(values) {
  const is = (row) => values[row] !== null && values[row] !== undefined;
  return values.flatMap((_, row) => (is(row) && !is(row - 1) && !is(row + 1) ? [row] : []));
}

function decimalsOf(splits) {
  const step = splits.length > 1 ? Math.abs(splits[1] - splits[0]) : 1;
  return step >= 1 ? (Number.isInteger(step) ? 0 : 1) : Math.ceil(-Math.log10(step) - 1e-9);
}

function spoken({ periods, values }, decimals, variable) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const span = `${variable.title} from ${periods.label(0)} to ${periods.label(periods.length - 1)}`;
  if (low > high) return `${span}: no value`;
  return `${span}: between ${number(low, decimals)} and ${number(high, decimals)} ${unit(variable.unit)}`;
}
