/* The panel of a place: its value in the chosen period, its series, and the files to take home. */

import { Refusal } from "./ask.js";
import { Chart } from "./chart.js";
import { byId, element } from "./element.js";
import { readSeries, seriesAddress } from "./series.js";
import { number, place, places, unit } from "./units.js";

export class Panel {
  /** `pick(at)`: somebody chose a period in the chart; `close()`: somebody closed the panel; `found(series)`: it is read. */
  constructor({ pick, close, found }) {
    this.box = byId("panel");
    this.found = found;
    this.series = null;
    this.reading = null;
    this.at = 0;
    this.chart = new Chart(byId("chart"), { pick, hover: (at) => this.#read(at ?? this.at) });
    byId("close").addEventListener("click", close);
    document.addEventListener("keydown", (event) => event.key === "Escape" && !this.box.hidden && close());
  }

  /** Show the series of a variable at a place. */
  async open(collection, variable, point, at) {
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    this.at = at;
    this.box.hidden = false;
    this.box.classList.add("waiting");
    document.body.classList.add("has-panel");
    byId("panel-place").textContent = place(point);
    byId("panel-version").textContent = `version ${collection.version.slice(0, 12)}`;
    byId("panel-version").title = collection.version;
    const spread = variable.spread;
    const names = spread ? [variable.name, spread.name] : [variable.name];
    for (const [id, format, ending] of [["csv", "CSV", "csv"], ["netcdf", "NetCDF", "nc"], ["covjson", "CoverageJSON", "covjson"]]) {
      byId(id).href = seriesAddress(collection, names, point, format);
      byId(id).download = `${collection.id}_${point.lat.toFixed(3)}_${point.lon.toFixed(3)}.${ending}`;
    }
    try {
      const series = await readSeries(collection, names, point, reading.signal);
      this.#fill(collection, variable, spread, series);
      this.found(point, series);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Refusal)) throw error;
      this.series = null;
      this.chart.clear();
      byId("reading-when").textContent = "";
      byId("panel-note").textContent = "";
      this.#words(error.message);
    } finally {
      if (this.reading === reading) this.box.classList.remove("waiting");
    }
  }

  /** Mark a period as the chosen one. */
  show(at) {
    this.at = at;
    if (!this.series) return;
    this.chart.mark(at);
    this.#read(at);
  }

  hide() {
    this.reading?.abort();
    this.series = null;
    this.chart.clear();
    this.box.hidden = true;
    document.body.classList.remove("has-panel");
  }

  #fill(collection, variable, spread, { times, values: ranges }) {
    const { periods } = collection;
    const values = new Array(periods.length).fill(null);
    const widths = spread ? new Array(periods.length).fill(null) : null;
    times.forEach((time, i) => {
      const at = times.length === periods.length ? i : periods.nearest(time);
      values[at] = ranges[variable.name][i];
      if (widths) widths[at] = ranges[spread.name][i];
    });
    const decimals = places(values);
    this.series = { periods, variable, values, spread: widths, decimals, spreadDecimals: widths ? places(widths) : 0 };
    const count = values.filter((value) => value !== null).length;
    const notes = [];
    if (count < periods.length) notes.push(count === 0 ? "There is no value here in any period." : `${count} of ${periods.length} periods have a value here.`);
    if (spread && count > 0) notes.push(`Band: ± ${spread.title.charAt(0).toLowerCase()}${spread.title.slice(1)}.`);
    if (collection.synthetic) notes.push("Synthetic data.");
    byId("panel-note").textContent = notes.join(" ");
    byId("chart").hidden = count === 0;
    this.chart.at = this.at;
    if (count > 0) this.chart.draw(this.series);
    else this.chart.clear();
    this.#read(this.at);
  }

  #read(at) {
    if (!this.series || at < 0) return;
    const { periods, variable, values, spread, decimals, spreadDecimals } = this.series;
    byId("reading-when").textContent = periods.label(at);
    const value = values[at];
    if (value === null || value === undefined) {
      this.#words("no value");
      return;
    }
    const output = byId("reading");
    output.className = "";
    output.replaceChildren(`${number(value, decimals)} ${unit(variable.unit)}`.trim());
    const width = spread?.[at];
    if (width !== null && width !== undefined) output.append(" ", element("span", { className: "spread" }, `± ${number(width, Math.min(spreadDecimals, decimals))}`));
  }

  #words(text) {
    const output = byId("reading");
    output.className = "words";
    output.replaceChildren(text);
  }
}
