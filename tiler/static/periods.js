/* A time axis: half-open UTC periods of one step, in order, with gaps simply absent. */

const PARTS = /^(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ](\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.\d+)?)?)?Z?)?)?)?$/;
const STEP = /^P(?:(\d+)([YMWD])|T(\d+)([HM]))$/;
const LENGTHS = { Y: 4, M: 7, D: 10, H: 13, m: 16 };
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

export class Periods {
  /** `starts`: milliseconds since 1970, rising; `step`: an ISO 8601 duration of one unit such as P1M. */
  constructor(starts, step) {
    this.starts = starts;
    [this.count, this.unit] = stepOf(step);
  }

  /** Runs of consecutive periods, `[first start, count]`. */
  static ofRuns(runs, step) {
    const [count, unit] = stepOf(step);
    return new Periods(runs.flatMap(([first, many]) => Array.from({ length: many }, (_, i) => shifted(first, i * count, unit))), step);
  }

  /** Periods that contain these times; the first one begins at `first`. */
  static ofTimes(times, first, step) {
    const [count, unit] = stepOf(step);
    if (times.length === 0 || times[0] === first) return new Periods(times, step);
    // Times at the very end of their periods belong to what ends there.
    const late = times[0] === shifted(first, count, unit) ? 1 : 0;
    if (count === 1) return new Periods(times.map((time) => floored(time - late, unit)), step);
    return new Periods(times.map((time) => time - (times[0] - first)), step);
  }

  get length() {
    return this.starts.length;
  }

  /** The end of the period at a position, milliseconds; it is not part of it. */
  end(at) {
    return shifted(this.starts[at], this.count, this.unit);
  }

  /** ISO 8601 start at the resolution of the axis: how the service names periods, and what a `datetime=` says to get one. */
  id(at) {
    const text = new Date(this.starts[at]).toISOString();
    return text.slice(0, LENGTHS[this.unit]);
  }

  /** The period in words. */
  label(at) {
    const start = this.starts[at];
    const words = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options }).format(start);
    if (this.unit === "Y") {
      const year = new Date(start).getUTCFullYear();
      return this.count > 1 ? `${year}–${year + this.count - 1}` : String(year);
    }
    if (this.unit === "M") {
      const first = words({ year: "numeric", month: "long" });
      if (this.count === 1) return first;
      const last = new Date(this.end(at) - DAY);
      return `${words({ year: "numeric", month: "short" })} – ${new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", year: "numeric", month: "short" }).format(last)}`;
    }
    const day = words({ year: "numeric", month: "short", day: "numeric" });
    if (this.unit === "D") return this.count > 1 ? `${day}, ${this.count} days` : day;
    return `${day}, ${new Date(start).toISOString().slice(11, 16)} UTC`;
  }

  /** Whether periods are missing between this one and the one before. */
  follows(at) {
    return at === 0 || this.end(at - 1) === this.starts[at];
  }

  /** Position of the period that contains an instant, else of the nearest one. */
  nearest(instant) {
    let low = 0;
    let high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= instant) low = middle;
      else high = middle - 1;
    }
    const next = low + 1;
    if (next < this.starts.length && instant >= this.end(low) && this.starts[next] - instant < instant - this.end(low)) return next;
    return low;
  }

  /** How many periods a year holds, to step by one. */
  get perYear() {
    return Math.max(1, Math.round((365.25 * DAY) / (shifted(0, this.count, this.unit) || 1)));
  }
}

/** Milliseconds of an ISO 8601 date or time in UTC, its first instant; null if it is none. */
export function instantOf(text) {
  const match = PARTS.exec(text.trim());
  if (!match) return null;
  const [year, month, day, hour, minute, second] = match.slice(1).map((part) => (part === undefined ? undefined : Number(part)));
  const at = Date.UTC(year, (month ?? 1) - 1, day ?? 1, hour ?? 0, minute ?? 0, second ?? 0);
  const back = new Date(at);
  return back.getUTCMonth() + 1 === (month ?? 1) && back.getUTCDate() === (day ?? 1) ? at : null;
}

function stepOf(step) {
  const match = STEP.exec(step);
  if (!match) throw new Error(`${step} is not a step such as P1M`);
  if (match[2]) return match[2] === "W" ? [7 * Number(match[1]), "D"] : [Number(match[1]), match[2]];
  return [Number(match[3]), match[4] === "H" ? "H" : "m"];
}

function shifted(instant, count, unit) {
  if (unit === "D") return instant + count * DAY;
  if (unit === "H") return instant + count * HOUR;
  if (unit === "m") return instant + count * 60_000;
  const date = new Date(instant);
  if (unit === "Y") date.setUTCFullYear(date.getUTCFullYear() + count);
  else date.setUTCMonth(date.getUTCMonth() + count);
  return date.getTime();
}

function floored(instant, unit) {
  const text = new Date(instant).toISOString();
  return instantOf(text.slice(0, LENGTHS[unit]));
}
