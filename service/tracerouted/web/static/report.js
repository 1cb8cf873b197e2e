// A trace as text to paste into a ticket. No DOM in here.

import { asked, ms, percent, plain, verdict, who } from "./words.js";

const HEAD = ["TTL", "Host", "AS", "Loss", "Sent", "Last", "Avg", "Best", "Worst", "StDev", "Jitter"];

/** The report; `link` is the trace's permalink, or null. */
export function report(trace, link) {
  const { head } = trace;
  const { title, text } = verdict(trace);
  const target = head.target ? who({ address: head.target.address, hostname: head.target.host === head.target.address ? null : head.target.host }) : plain(head.request.target);
  const lines = [
    `Traceroute to ${target}${head.source_address ? ` from ${head.source_address}` : ""}`,
    `${asked(head.request)}; ${head.started_at ?? head.created_at}`,
    `${title}: ${text}`,
    ...(link ? [link] : []),
    "",
    ...aligned([HEAD, ...trace.rows.flatMap((hop, i) => hopLines(hop, trace.firstTtl + i))]),
  ];
  return `${lines.join("\n")}\n`;
}

function hopLines(hop, ttl) {
  if (!hop) return [[String(ttl), "waiting", "", "", "", "", "", "", "", "", ""]];
  const { stats } = hop;
  const latest = [...hop.probes.values()].filter((probe) => probe.rtt_ms !== null).reduce((a, b) => (a && a.sent_at > b.sent_at ? a : b), null);
  const figures = [
    percent(stats.loss_pct), String(stats.sent), ms(latest?.rtt_ms, 2), ms(stats.avg_ms, 2), ms(stats.min_ms, 2),
    ms(stats.max_ms, 2), ms(stats.stddev_ms, 2), ms(stats.jitter_ms, 2),
  ];
  const hosts = hop.responders.map((responder) => [who(responder), responder.asn ? `AS${responder.asn.number}` : ""]);
  const [first, ...others] = hosts.length ? hosts : [["no answer", ""]];
  if (hop.rate_limited && stats.lost) first[0] += " [limits answers]";
  return [[String(ttl), ...first, ...figures], ...others.map((host) => ["", ...host, "", "", "", "", "", "", "", ""])];
}

/** Rows as lines with columns of equal width: the second and third to the left, the others to the right. */
function aligned(rows) {
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) => row
    .map((text, column) => (column === 1 || column === 2 ? text.padEnd(widths[column]) : text.padStart(widths[column])))
    .join("  ").trimEnd());
}
