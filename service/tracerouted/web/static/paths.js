// The parallel paths of a trace's flows: who is on which, where they part and meet, and where to draw them. No DOM.

const SWEEPS = 4;

/**
 * Rows of nodes and the edges between them.
 *
 * -> {rows: [{ttl, nodes: [{key, responder, flows, at}]}], edges: [{row, from, to, flows}], paths: [{flows, keys}]}
 * `at` is a node's place in its row; an edge joins place `from` of its row to place `to` of the next; `responder` is
 * null for silence; `keys` name the nodes of a path from the first row on.
 */
export function pathGraph(trace) {
  const ways = flowWays(trace);
  const length = Math.max(0, ...[...ways.values()].map((way) => way.length));
  const rows = Array.from({ length }, (_, i) => ({ ttl: trace.firstTtl + i, nodes: new Map() }));
  const paths = new Map();
  for (const [flow, way] of ways) {
    const keys = [];
    let known = "";
    way.forEach((address, i) => {
      // Silences are told apart by who was heard last: flows that came by different routers need not share them.
      const key = address ?? `? ${known}`;
      known = address ?? known;
      keys.push(key);
      const nodes = rows[i].nodes;
      if (!nodes.has(key)) nodes.set(key, { key, responder: address && responderAt(trace, rows[i].ttl, address), flows: [], at: nodes.size });
      nodes.get(key).flows.push(flow);
    });
    const name = keys.join(" ");
    if (!paths.has(name)) paths.set(name, { keys, flows: [] });
    paths.get(name).flows.push(flow);
  }
  const graph = { rows: rows.map(({ ttl, nodes }) => ({ ttl, nodes: [...nodes.values()] })), paths: [...paths.values()] };
  graph.edges = edgesOf(rows, graph.paths);
  untangle(graph);
  return graph;
}

/** Per flow, the first responder at each TTL, null where silent, without the silence at its end. */
function flowWays(trace) {
  const ways = new Map();
  trace.rows.forEach((hop, i) => {
    for (const { flow, address } of hop?.probes.values() ?? []) {
      if (address === null) continue;
      const way = ways.get(flow) ?? [];
      ways.set(flow, way);
      while (way.length <= i) way.push(null);
      way[i] ??= address;
    }
  });
  return new Map([...ways].sort(([a], [b]) => a - b));
}

function responderAt(trace, ttl, address) {
  return trace.hops.get(ttl).responders.find((responder) => responder.address === address) ?? { address, hostname: null, asn: null };
}

function edgesOf(rows, paths) {
  const edges = new Map();
  for (const { keys, flows } of paths) {
    for (let row = 0; row + 1 < keys.length; row += 1) {
      const name = `${row} ${keys[row]} ${keys[row + 1]}`;
      const edge = edges.get(name) ?? { row, a: rows[row].nodes.get(keys[row]), b: rows[row + 1].nodes.get(keys[row + 1]), flows: [] };
      edge.flows.push(...flows);
      edges.set(name, edge);
    }
  }
  return [...edges.values()];
}

/** Order each row's nodes by where their neighbours stand, down and up in turns, so that few edges cross. */
function untangle({ rows, edges }) {
  const ups = new Map();
  const downs = new Map();
  for (const { a, b } of edges) {
    downs.set(a, [...(downs.get(a) ?? []), b]);
    ups.set(b, [...(ups.get(b) ?? []), a]);
  }
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const down = sweep % 2 === 0;
    for (const { nodes } of down ? rows : rows.toReversed()) {
      const weigh = (node) => {
        const near = (down ? ups : downs).get(node);
        return near ? near.reduce((sum, other) => sum + other.at, 0) / near.length : node.at;
      };
      const weights = new Map(nodes.map((node) => [node, weigh(node)]));
      nodes.sort((a, b) => weights.get(a) - weights.get(b));
      nodes.forEach((node, i) => {
        node.at = i - (nodes.length - 1) / 2; // rows are centred
      });
    }
  }
}

/** One sentence or two about a graph. */
export function pathSummary({ rows, paths }, count, target) {
  const flows = paths.reduce((sum, path) => sum + path.flows.length, 0);
  if (!flows) return "No flow has been answered yet.";
  const known = rows.map(({ nodes }) => nodes.filter(({ responder }) => responder).length);
  if (paths.length === 1) return `All ${count(flows, "flow")} take the same path.`;
  const first = known.findIndex((n) => n > 1);
  if (first < 0) return `${count(paths.length, "path")} seen with ${count(flows, "flow")}; they differ only in who stays silent or where they end.`;
  const last = known.findLastIndex((n) => n > 1);
  const part = first > 0 ? `part after hop ${rows[first - 1].ttl}` : "part at once";
  const together = rows[last + 1]?.nodes.some((node) => node.flows.length === flows);
  const lengths = paths.map(({ keys }) => keys.length);
  const [least, most] = [Math.min(...lengths), Math.max(...lengths)].map((length) => rows[length - 1].ttl);
  let meet = "have not met again";
  if (together) meet = `all meet again at hop ${rows[last + 1].ttl}`;
  else if (paths.every(({ keys }) => keys.at(-1) === target)) meet = `end at the target after ${least === most ? most : `${least} to ${most}`} hops`;
  return `${count(paths.length, "path")} seen with ${count(flows, "flow")}. They ${part} and ${meet}.`;
}
