// The drawing of the parallel paths: a row per TTL, a box per responder, a line per way taken.

import { drawn, element, put, say } from "./dom.js";
import { pathGraph, pathSummary } from "./paths.js";
import { count, plain, ranges, who } from "./words.js";

const ROW = 64;
const BOX = 38;
const GUTTER = 44;
const GAP = 14;
const CHARACTER = 6.7; // width of one, in the drawing's monospace at 11 px
const NARROWEST = 96;
const WIDEST = 270;

/** `node` goes into the page; `update(trace)` draws what has changed. */
export class PathGraph {
  #drawn = "";
  #chosen = null;
  #marks = [];

  constructor() {
    this.#summary = element("p", { class: "summary" });
    this.#list = element("ul", { class: "paths", "aria-label": "Paths; choose one to see it in the drawing" });
    this.#frame = element("div", { class: "frame", role: "region", "aria-label": "Drawing of the parallel paths", tabindex: "0" });
    this.node = element("section", { class: "graph", "aria-labelledby": "paths-title", hidden: true },
      element("h2", { id: "paths-title" }, "Parallel paths"), this.#summary, this.#list, this.#frame);
  }

  #summary;
  #list;
  #frame;

  clear() {
    this.#drawn = "";
    this.#chosen = null;
    put(this.node, "hidden", true);
  }

  update(trace) {
    if (trace.head.request.flows < 2) return;
    const graph = pathGraph(trace);
    const names = [...trace.hops.values()].flatMap((hop) => hop.responders.map((responder) => responder.hostname));
    const state = JSON.stringify([graph.paths, names]);
    put(this.node, "hidden", false);
    if (state === this.#drawn) return;
    this.#drawn = state;
    say(this.#summary, pathSummary(graph, count, trace.head.target?.address));
    this.#frame.replaceChildren(this.#draw(graph, trace));
    this.#listPaths(graph);
    this.#light(null);
  }

  #listPaths({ paths }) {
    const several = paths.length > 1;
    const held = this.#list.contains(document.activeElement) ? [...this.#list.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    const sorted = paths.map((path, i) => ({ path, i })).sort((a, b) => b.path.flows.length - a.path.flows.length);
    this.#list.replaceChildren(...(several ? sorted : []).map(({ path, i }) => {
      const words = `${count(path.keys.length, "hop")} \u00b7 ${path.flows.length === 1 ? "flow" : "flows"} ${ranges(path.flows)}`;
      const button = element("button", { type: "button", "aria-pressed": String(this.#chosen === path.keys.join(" ")) }, words);
      button.addEventListener("mouseenter", () => this.#light(path));
      button.addEventListener("mouseleave", () => this.#light(null));
      button.addEventListener("click", () => {
        const name = path.keys.join(" ");
        this.#chosen = this.#chosen === name ? null : name;
        for (const other of this.#list.querySelectorAll("button")) put(other, "aria-pressed", String(other === button && this.#chosen !== null));
        this.#light(null);
      });
      return element("li", { "data-path": i }, button);
    }));
    if (held >= 0) this.#list.querySelectorAll("button")[held]?.focus();
    this.#paths = paths;
  }

  #paths = [];

  /** Show one path (or the chosen one, or all alike). */
  #light(path) {
    const shown = path ?? this.#paths.find((other) => other.keys.join(" ") === this.#chosen) ?? null;
    for (const { node, flows } of this.#marks) {
      node.classList.toggle("lit", shown !== null && flows.includes(shown.flows[0]));
      node.classList.toggle("dim", shown !== null && !flows.includes(shown.flows[0]));
    }
  }

  #draw({ rows, edges, paths }, trace) {
    const widest = Math.max(1, ...rows.map(({ nodes }) => nodes.length));
    const box = Math.min(WIDEST, Math.max(NARROWEST, Math.floor(((this.#frame.clientWidth || 600) - GUTTER - 10) / widest) - GAP));
    const width = GUTTER + widest * (box + GAP) + 8;
    const height = rows.length * ROW + 6;
    const middle = GUTTER + (widest * (box + GAP)) / 2;
    const flows = paths.reduce((sum, path) => sum + path.flows.length, 0);
    const x = (node) => middle + node.at * (box + GAP);
    const y = (row) => row * ROW + ROW / 2;
    this.#marks = [];
    const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "drawing", role: "group", "aria-label": "Parallel paths by TTL" });
    for (const { row, a, b, flows: on } of edges) {
      const [top, bottom] = [y(row) + BOX / 2, y(row + 1) - BOX / 2];
      const bend = (top + bottom) / 2;
      const line = drawn("path", { class: "edge", d: `M${x(a)} ${top}C${x(a)} ${bend} ${x(b)} ${bend} ${x(b)} ${bottom}` });
      line.style.setProperty("stroke-width", String(1.25 + (3.5 * on.length) / flows));
      this.#marks.push({ node: line, flows: on });
      svg.append(line);
    }
    rows.forEach(({ ttl, nodes }, row) => {
      svg.append(drawn("text", { class: "ttl", x: GUTTER - 16, y: y(row) + 4 }, String(ttl)));
      for (const node of nodes) svg.append(this.#box(node, x(node), y(row), box, nodes.length > 1 ? flows : 0, trace));
    });
    return svg;
  }

  #box({ responder, flows }, x, y, width, of, trace) {
    const share = of ? `${flows.length}/${of}` : "";
    const room = Math.floor((width - 16) / CHARACTER);
    const left = room - (share ? share.length + 1 : 0);
    const name = responder?.hostname ? plain(responder.hostname) : null;
    const target = responder && responder.address === trace.head.target?.address;
    const kind = responder ? (target ? "box target" : "box") : "box silent";
    const told = `${responder ? who(responder) : "No answer"}: ${flows.length === 1 ? "flow" : "flows"} ${ranges(flows)}`;
    const node = drawn("g", { class: kind, transform: `translate(${x - width / 2} ${y - BOX / 2})` },
      drawn("title", {}, told),
      drawn("rect", { width, height: BOX, rx: 5 }),
      name ? drawn("text", { x: 8, y: 16 }, fitted(name, room, false)) : null,
      drawn("text", { class: name ? "address" : null, x: 8, y: name ? 30 : BOX / 2 + 4 }, responder ? fitted(responder.address, left, true) : "no answer"),
      share ? drawn("text", { class: "share", x: width - 8, y: name ? 30 : BOX / 2 + 4 }, share) : null);
    this.#marks.push({ node, flows });
    return node;
  }
}

/** A text cut to so many characters: names lose their end, addresses their beginning. */
function fitted(text, room, tail) {
  if (text.length <= room) return text;
  return tail ? `\u2026${text.slice(text.length - room + 1)}` : `${text.slice(0, room - 1)}\u2026`;
}
