// What the page says, in plain words: how a trace ended, and numbers as text. No DOM in here.

const ENDED_EARLY = { deadline: "the deadline passed", max_ttl: "the highest TTL asked for was tried" };

/** A text without control, formatting or bidirectional characters: safe in a terminal and in a sentence. */
export const plain = (text) => String(text).replace(/[\p{C}\u2028\u2029]/gu, "\ufffd");

/** "name (address)", or the address alone. */
export function who(responder) {
  const { address, hostname } = responder;
  return hostname ? `${plain(hostname)} (${address})` : address;
}

/** A responder with its AS, for a sentence. */
const whoseAs = (responder) => (responder.asn ? `${who(responder)}, AS${responder.asn.number}` : who(responder));

/** Milliseconds with so many decimals; "" where there is none. */
export const ms = (value, decimals) => (value === null || value === undefined ? "" : value.toFixed(decimals));

/** A latency on its own, with a unit. */
export function latency(value) {
  if (value === null || value === undefined) return "unknown time";
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}

/** A share in percent. */
export function percent(value) {
  if (value === null || value === undefined) return "";
  return `${value === 0 || value >= 9.95 ? Math.round(value) : value.toFixed(1)}%`;
}

/** A duration in ms, roughly. */
export function duration(value) {
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 100000) return `${(value / 1000).toFixed(1)} s`;
  return `${Math.round(value / 60000)} min`;
}

/** "1 hop", "2 hops". */
export const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** Numbers as ranges: "1-3, 7". */
export function ranges(numbers) {
  const parts = [];
  for (const n of [...numbers].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && last[1] === n - 1) last[1] = n;
    else parts.push([n, n]);
  }
  return parts.map(([a, b]) => (a === b ? `${a}` : b === a + 1 ? `${a}, ${b}` : `${a}\u2013${b}`)).join(", ");
}

/** What a trace was asked to do: "TCP port 443, 3 probes per hop". */
export function asked(request) {
  const parts = [request.protocol.toUpperCase() + (request.port ? ` port ${request.port}` : "")];
  parts.push(`${count(request.probes, "probe")} per hop`);
  if (request.flows > 1) parts[1] = `${count(request.probes, "probe")} per hop and flow, ${request.flows} flows`;
  return parts.join(", ");
}

/** How a trace stands: {tone, title, text}. tone is live, good, bad or quiet. */
export function verdict(trace) {
  const { head } = trace;
  if (!trace.over) return underway(trace);
  const hops = [...trace.hops.values()].sort((a, b) => a.ttl - b.ttl);
  const answering = hops.filter((hop) => hop.responders.length);
  const last = answering.at(-1);
  const beyond = last ? `The last to answer was ${who(last.responders[0])} at hop ${last.ttl}.` : "Nobody on the way answered.";
  switch (head.stop_reason) {
    case "reached":
      return reached(trace, hops);
    case "unreachable":
      return blocked(trace, hops, beyond);
    case "gap_limit":
      return {
        tone: "bad",
        title: last ? `Silent beyond hop ${last.ttl}` : "Silent from the first hop",
        text: `${last ? `The last to answer was ${who(last.responders[0])}.` : beyond} The target may be down, or a filter drops these probes.`,
      };
    case "loop":
      return { tone: "bad", title: "Routing loop", text: looping(answering) };
    case "cancelled":
      return { tone: "quiet", title: "Cancelled", text: `${beyond} The service has forgotten this trace; this page shows what it had seen until then.` };
    case "max_ttl":
    case "deadline":
      return { tone: "bad", title: "Not reached", text: `The trace stopped because ${ENDED_EARLY[head.stop_reason]}. ${beyond}` };
    default:
      return { tone: "bad", title: "Failed", text: sentence(head.error ?? "the service gave no reason") };
  }
}

function underway(trace) {
  const { head } = trace;
  if (head.status === "queued") {
    return head.target
      ? { tone: "live", title: "Queued", text: "Waiting for its turn." }
      : { tone: "live", title: "Looking up", text: `Finding the address of ${plain(head.request.target)}.` };
  }
  const answered = [...trace.hops.values()].filter((hop) => hop.responders.length).length;
  return { tone: "live", title: "Tracing", text: `${count(answered, "hop")} answered so far.` };
}

function reached(trace, hops) {
  // Each flow's end is where it was answered; a flow with a shorter way passes none of the later hops.
  const ends = new Map();
  for (const hop of hops) {
    for (const { flow, outcome } of hop.probes.values()) if (outcome === "reply" && !ends.has(flow)) ends.set(flow, hop);
  }
  if (!ends.size) return { tone: "good", title: "Reached", text: "The target answers." };
  const times = [];
  const said = new Map();
  let lost = 0;
  let sent = 0;
  for (const [flow, hop] of ends) {
    for (const probe of hop.probes.values()) {
      if (probe.flow !== flow || probe.outcome === "pending" || probe.outcome === "error") continue;
      sent += 1;
      if (probe.address === null) lost += 1;
      else said.set(probe.address, hop);
      if (probe.rtt_ms !== null) times.push(probe.rtt_ms);
    }
  }
  const { host, address } = trace.head.target;
  const name = host === address ? address : `${plain(host)} (${address})`;
  const other = [...said.keys()].find((responder) => responder !== address);
  const subject = said.has(address) || !other ? `${name} answers` : `${other} answers in place of ${name}`;
  const ttls = [...ends.values()].map((hop) => hop.ttl);
  const [least, most] = [Math.min(...ttls), Math.max(...ttls)];
  const after = least === most ? count(most, "hop") : `${least} to ${most} hops`;
  const mean = times.length ? ` in ${latency(times.reduce((a, b) => a + b) / times.length)} on average` : "";
  const loss = lost ? `${percent((100 * lost) / sent)} of the probes to it lost` : "no loss";
  return { tone: lost ? "warn" : "good", title: "Reached", text: `${subject} after ${after}${mean}, ${loss}.` };
}

function blocked(trace, hops, beyond) {
  for (const hop of hops.toReversed()) {
    const refusal = [...hop.probes.values()].find((probe) => probe.outcome === "unreachable" && probe.address);
    if (!refusal) continue;
    const blocker = hop.responders.find((responder) => responder.address === refusal.address) ?? { address: refusal.address };
    if (blocker.address === trace.head.target?.address) {
      return { tone: "bad", title: "Refused by the target", text: `${whoseAs(blocker)} at hop ${hop.ttl} is the target itself and says it cannot be reached this way.` };
    }
    return { tone: "bad", title: `Blocked at hop ${hop.ttl}`, text: `${whoseAs(blocker)} says the target cannot be reached: it has no way on, or a filter forbids it.` };
  }
  return { tone: "bad", title: "Unreachable", text: beyond };
}

function looping(answering) {
  const ttls = new Map();
  for (const hop of answering) {
    for (const { address } of hop.responders) ttls.set(address, [...(ttls.get(address) ?? []), hop.ttl]);
  }
  const again = [...ttls].filter(([, at]) => at.length > 1).map(([address]) => address);
  if (!again.length) return "The same routers answered again and again.";
  const names = again.map((address) => who(answering.flatMap((hop) => hop.responders).find((r) => r.address === address)));
  const from = ttls.get(again[0])[0];
  return `From hop ${from} on, packets go round between ${names.join(" and ")} and never reach the target.`;
}

function sentence(text) {
  const clean = plain(text);
  return clean.charAt(0).toUpperCase() + clean.slice(1) + (/[.!?]$/.test(clean) ? "" : ".");
}
