// The latency picture of a hop: where its round-trip times lie on an axis all hops share, and how much was lost.
//
// Round-trip times are bars on a linear axis, higher where more probes fell on the same spot; a band spans best to
// worst, a mark stands at the median, and a thread joins the medians of neighbouring hops. Loss is a bar beyond the end of
// the axis, where an answer that never comes belongs: as long as the share of probes lost.

import { drawn, put } from "./dom.js";

const WIDTH = 1000; // the unit of x; the picture stretches to its cell
const AXIS = 850;
const BEYOND = 872; // where bars past the end of the axis are put
const LOSS = 900;
const BIN = 4;
const MIDDLE = 50;
const STEPS = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

/** How many colours tell the responders of one hop apart. */
export const COLOURS = 6;

/** The end of the axis in ms: room for what is usual at every hop, so that one late answer does not flatten the rest. */
export function axisEnd(hops, present) {
  let need = 0;
  for (const { stats } of hops) {
    if (stats.max_ms !== null) need = Math.max(need, Math.min(stats.max_ms, 3 * stats.median_ms));
  }
  need = Math.max(need * 1.02, 0.1);
  // It grows as needed and shrinks only when most of it is empty: pictures hold still while probes come in.
  if (present && need <= present && need > present * 0.4) return present;
  const power = 10 ** Math.floor(Math.log10(need));
  return STEPS.find((step) => step * power >= need) * power;
}

/** Places to mark on the axis: [{at, left}] with `at` in ms and `left` in percent of the picture's width. */
export function axisMarks(end) {
  const step = [1, 1.5, 3].includes(Number((end / 10 ** Math.floor(Math.log10(end))).toPrecision(2))) ? end / 3 : end / 2;
  const steps = Math.round(end / step);
  return Array.from({ length: steps + 1 }, (_, i) => ({ at: i * step, left: (i * step * AXIS) / end / 10 }));
}

/** An empty picture: {svg, draw}. */
export function picture() {
  const parts = {
    grid: drawn("path", { class: "grid" }),
    loss: drawn("path", { class: "loss" }),
    band: drawn("path", { class: "band" }),
    thread: drawn("path", { class: "thread" }),
    bars: Array.from({ length: COLOURS }, (_, i) => drawn("path", { class: `bars c${i}` })),
    median: drawn("path", { class: "median" }),
  };
  const svg = drawn(
    "svg",
    { viewBox: `0 0 ${WIDTH} 100`, preserveAspectRatio: "none", role: "img", class: "picture" },
    parts.grid, parts.loss, parts.thread, parts.band, ...parts.bars, parts.median,
  );
  return { svg, draw: (hop, end, above, below) => draw(parts, hop, end, above, below) };
}

/**
 * Bring a picture up to date. `hop` may be undefined (nothing known); `above` and `below` are the neighbouring
 * medians in ms or null.
 */
function draw(parts, hop, end, above, below) {
  const x = (value) => (value > end ? BEYOND : (value * AXIS) / end);
  put(parts.grid, "d", axisMarks(end).map(({ left }) => `M${round(left * 10)} 0V100`).join(""));
  const stats = hop?.stats;
  const known = stats !== undefined && stats.median_ms !== null;
  put(parts.loss, "d", stats?.lost ? `M${LOSS} 38h${round(((WIDTH - LOSS) * stats.loss_pct) / 100)}v24H${LOSS}z` : "");
  put(parts.band, "d", known ? `M${round(x(stats.min_ms) - 1)} 36H${round(x(stats.max_ms) + 1)}V64H${round(x(stats.min_ms) - 1)}z` : "");
  put(parts.median, "d", known ? `M${round(x(stats.median_ms))} 16V84` : "");
  put(parts.thread, "d", known ? thread(x, stats.median_ms, above, below) : "");
  const bars = known ? bins(hop, x) : [];
  parts.bars.forEach((path, i) => put(path, "d", bars[i] ?? ""));
}

function thread(x, median, above, below) {
  const here = x(median);
  const start = above === null ? "" : `M${round((x(above) + here) / 2)} 0L${round(here)} ${MIDDLE}`;
  const end = below === null ? "" : `M${round(here)} ${MIDDLE}L${round((x(below) + here) / 2)} 100`;
  return start + end;
}

function bins(hop, x) {
  const colour = new Map(hop.responders.map(({ address }, i) => [address, i % COLOURS]));
  const counts = Array.from({ length: COLOURS }, () => new Map());
  let most = 1;
  for (const { address, rtt_ms } of hop.probes.values()) {
    if (rtt_ms === null) continue;
    const bin = Math.round(x(rtt_ms) / BIN);
    const bins = counts[colour.get(address) ?? 0];
    const n = (bins.get(bin) ?? 0) + 1;
    bins.set(bin, n);
    if (n > most) most = n;
  }
  return counts.map((bins) => {
    let path = "";
    for (const [bin, n] of bins) {
      const half = round(12 + 20 * (most === 1 ? 0.35 : n / most));
      path += `M${bin * BIN} ${MIDDLE - half}v${2 * half}`;
    }
    return path;
  });
}

const round = (value) => Math.round(value * 10) / 10;
