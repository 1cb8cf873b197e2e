// The latency picture of a hop: where its round-trip times lie on an axis all hops share, and how much was lost.
//
// Every responder has a lane at the height of its name. In it, round-trip times are bars on a linear axis, higher where
// more probes fell on the same spot; a band spans best to worst, and a mark stands at the median. A thread joins the
// medians of neighbouring hops. Loss is a bar beyond the end of the axis, where an answer that never comes belongs: as
// long as the share of probes lost. Answers past the end of the axis are arrowheads there.

import { drawn, put } from "./dom.js";

const WIDTH = 1000; // the unit of x; the picture stretches to its cell
const AXIS = 810;
const BEYOND = 820; // where what lies past the end of the axis is put
const LOSS = 860;
const BIN = 4;
const MOST_LANES = 9;
const FEW = 10; // so few answers are all usual
const STEPS = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

/** How many colours tell the responders of one hop apart. */
export const COLOURS = 6;

/** The end of the axis in ms, 0 while nothing is known: room for what is usual at every hop, so that one late answer does not flatten the rest. */
export function axisEnd(hops, present) {
  let need = 0;
  for (const { stats } of hops) {
    if (stats.max_ms === null) continue;
    need = Math.max(need, stats.received < FEW ? stats.max_ms : Math.min(stats.max_ms, 3 * stats.median_ms));
  }
  if (!need) return present;
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

/** An empty picture: {svg, draw}; see `draw`. */
export function picture() {
  const parts = {
    grid: drawn("path", { class: "grid" }),
    share: drawn("path", { class: "share" }),
    loss: drawn("path", { class: "loss" }),
    thread: drawn("path", { class: "thread" }),
    band: drawn("path", { class: "band" }),
    bars: Array.from({ length: COLOURS }, (_, i) => drawn("path", { class: `bars c${i}` })),
    beyond: drawn("path", { class: "beyond" }),
    median: drawn("path", { class: "median" }),
  };
  const svg = drawn(
    "svg",
    { viewBox: `0 0 ${WIDTH} 100`, preserveAspectRatio: "none", role: "img", class: "picture" },
    parts.grid, parts.share, parts.loss, parts.thread, parts.band, ...parts.bars, parts.beyond, parts.median,
  );
  return { svg, draw: (hop, end, above, below) => draw(parts, hop, end, above, below) };
}

/**
 * Bring a picture up to date. `hop` may be undefined (nothing known); `above` and `below` are the neighbouring
 * medians in ms or null.
 */
function draw(parts, hop, end, above, below) {
  const x = (value) => (value > end ? BEYOND : (value * AXIS) / end);
  const stats = hop?.stats;
  const paths = { band: "", beyond: "", median: "", bars: Array(COLOURS).fill("") };
  const rows = end && stats?.received ? lanes(hop) : [];
  parts.grid.ownerSVGElement.style.setProperty("--lanes", String(rows.length || 1));
  rows.forEach((lane, i, all) => drawLane(paths, lane, (i + 0.5) * (100 / all.length), 100 / all.length, end, x));
  put(parts.grid, "d", end ? axisMarks(end).map(({ left }) => `M${round(left * 10)} 0V100`).join("") : "");
  put(parts.share, "d", stats?.lost ? `M${LOSS} 38H${WIDTH}v24H${LOSS}z` : "");
  put(parts.loss, "d", stats?.lost ? `M${LOSS} 38h${round(((WIDTH - LOSS) * stats.loss_pct) / 100)}v24H${LOSS}z` : "");
  put(parts.thread, "d", end && stats && stats.median_ms !== null ? thread(x, stats.median_ms, above, below) : "");
  for (const name of ["band", "beyond", "median"]) put(parts[name], "d", paths[name]);
  parts.bars.forEach((path, i) => put(path, "d", paths.bars[i]));
}

/** The round-trip times of each responder, in order; the last lane has what found none of its own. */
function lanes(hop) {
  const all = hop.responders.slice(0, MOST_LANES).map((_, i) => ({ colour: i % COLOURS, times: [] }));
  const lane = new Map(hop.responders.map(({ address }, i) => [address, all[Math.min(i, MOST_LANES - 1)]]));
  for (const { address, rtt_ms } of hop.probes.values()) {
    if (rtt_ms !== null) lane.get(address)?.times.push(rtt_ms);
  }
  return all;
}

function drawLane(paths, { colour, times }, middle, height, end, x) {
  if (!times.length) return;
  times.sort((a, b) => a - b);
  const counts = new Map();
  let most = 1;
  for (const time of times) {
    if (time > end) break;
    const bin = Math.round(x(time) / BIN);
    const n = (counts.get(bin) ?? 0) + 1;
    counts.set(bin, n);
    if (n > most) most = n;
  }
  for (const [bin, n] of counts) {
    const half = height * (0.14 + 0.2 * (most === 1 ? 0.3 : n / most));
    paths.bars[colour] += `M${bin * BIN} ${round(middle - half)}v${round(2 * half)}`;
  }
  const [least, worst] = [x(times[0]), x(times.at(-1))];
  const half = height * 0.13;
  paths.band += `M${round(least - 1)} ${round(middle - half)}H${round(worst + 1)}v${round(2 * half)}H${round(least - 1)}z`;
  if (times.at(-1) > end) paths.beyond += `M${BEYOND} ${round(middle - half)}l14 ${round(half)}l-14 ${round(half)}`;
  const centre = (times[(times.length - 1) >> 1] + times[times.length >> 1]) / 2;
  paths.median += `M${round(x(centre))} ${round(middle - height * 0.36)}v${round(height * 0.72)}`;
}

function thread(x, median, above, below) {
  const here = x(median);
  const start = above === null ? "" : `M${round((x(above) + here) / 2)} 0L${round(here)} 50`;
  const end = below === null ? "" : `M${round(here)} 50L${round((x(below) + here) / 2)} 100`;
  return start + end;
}

const round = (value) => Math.round(value * 10) / 10;
