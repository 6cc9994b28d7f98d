// What of the page is text: the verdict, the servers, the table, the lists.
import { QPS, SERVED, ERRORS, CPU, MEMORY, QUERIES, sum, median, slowest } from "./series.js";

const byId = (id) => document.getElementById(id);

// element makes one, with a class, and text or children.
function element(tag, css, ...children) {
  const e = document.createElement(tag);
  if (css) {
    e.className = css;
  }
  e.append(...children);
  return e;
}

const problemsOf = (server) => Object.entries(server.problems ?? {});
const away = (server) => !server.alive && !server.reachable;
const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");
const list = (words) => (words.length < 2 ? words.join("") : words.slice(0, -1).join(", ") + " and " + words.at(-1));
const hour = (t) => new Date(t * 1000).toLocaleTimeString("en-GB");

// showNow puts a new state on the page.
export function showNow(now) {
  document.title = (verdict(now).state === "good" ? "" : "! ") + now.site + " · trivet";
  showVerdict(verdict(now));
  showServers(now);
  ifNew("health", [now.servers.map((s) => [s.name, s.problems, away(s)]), now.parts], () => showHealth(now));
  ifNew("alerts", now.alerts, () => showAlerts(now.alerts ?? []));
  ifNew("events", now.events, () => showEvents(now.events ?? []));
}

const shown = {};

// ifNew shows what differs from what is shown, so that a reader's place in it is not lost.
function ifNew(name, value, show) {
  const text = JSON.stringify(value ?? null);
  if (shown[name] !== text) {
    shown[name] = text;
    show();
  }
}

// verdict says in words how the site is.
function verdict(now) {
  const gone = now.servers.filter(away).map((s) => s.name);
  const deaf = now.servers.filter((s) => !away(s) && !s.reachable).map((s) => s.name);
  const problems = now.servers.filter((s) => !away(s)).flatMap((s) => problemsOf(s).map(([p]) => s.name + " " + p));
  const firing = (now.alerts ?? []).filter((a) => a.state === "firing").map((a) => a.name);
  const title = [];
  if (gone.length) {
    title.push(list(gone) + (gone.length > 1 ? " are" : " is") + " unreachable");
  }
  if (problems.length) {
    title.push(plural(problems.length, "part") + (problems.length > 1 ? " have a problem" : " has a problem"));
  }
  if (deaf.length) {
    title.push("no measurements from " + list(deaf));
  }
  if (!now.quorum) {
    title.push("changes cannot be agreed on");
  }
  if (firing.length) {
    title.push("alert " + list(firing) + " fires");
  }
  if (!title.length) {
    return { state: "good", title: "All is well", text: plural(now.servers.length * now.parts.length, "part") + " on " + plural(now.servers.length, "server") + " are healthy." + roles(now) };
  }
  const text = list(title);
  return { state: gone.length || !now.quorum ? "bad" : "warn", title: gone.length ? text : text[0].toUpperCase() + text.slice(1), text: (problems.length ? "Look at " + list(problems) + "." : "") + roles(now) };
}

function roles(now) {
  const holder = now.holder ? " " + now.holder + " holds the address" + (now.address ? " " + now.address : "") : " Nobody holds the address";
  if (now.holder && now.holder === now.writer) {
    return holder + " and takes the database's writes.";
  }
  return holder + (now.writer ? ", " + now.writer + " takes the database's writes." : ", nobody takes the database's writes.");
}

function showVerdict(v) {
  const box = byId("verdict");
  setText(byId("verdict-title"), v.title);
  setText(byId("verdict-text"), v.text.trim());
  box.dataset.state = v.state;
}

// setText leaves what is the same alone, so that a screen reader does not repeat it.
function setText(e, text) {
  if (e.textContent !== text) {
    e.textContent = text;
  }
}

function showServers(now) {
  byId("servers").replaceChildren(...now.servers.map((s, i) => serverCard(now, s, i)));
}

function serverCard(now, s, i) {
  const card = element("article", "card server tone-" + i + (s.reachable ? "" : " away"));
  card.id = "server-" + s.name;
  const problems = problemsOf(s).length;
  const word = away(s) ? ["bad", "unreachable"] : !s.reachable ? ["warn", "not measured"] : problems ? ["warn", plural(problems, "problem")] : ["good", "healthy"];
  const name = element("h3", "", s.name);
  const roles = element("p", "roles");
  if (now.holder === s.name) {
    roles.append(element("span", "role", "holds the address"));
  }
  if (now.writer === s.name) {
    roles.append(element("span", "role", "writer"));
  }
  const rate = element("p", "rate", element("span", "number", "–"), " ", element("small", "", "requests/s served"));
  card.append(
    element("header", "", name, element("span", "where", s.address), element("span", "health-word " + word[0], word[1])),
    roles, rate, meter("CPU", "cpu"), meter("Memory", "memory"), busiest(s),
  );
  return card;
}

function meter(label, css) {
  const bar = element("progress", css);
  bar.max = 100;
  bar.setAttribute("aria-label", label);
  return element("div", "meter", element("span", "", label), bar, element("b", css + "-text", "–"));
}

function busiest(s) {
  const top = s.reachable ? [...(s.processes ?? [])].sort((a, b) => b.cpu - a.cpu || b.memory - a.memory).slice(0, 3) : [];
  const rows = top.map((p) => element("tr", "", heading("row", p.name), element("td", "", percent(p.cpu)), element("td", "", Math.round(p.memory / 2 ** 20) + " MiB")));
  const table = element("table", "busiest", element("tbody", "", ...rows));
  table.setAttribute("aria-label", "Busiest processes of " + s.name);
  return table;
}

function showHealth(now) {
  byId("health-head").replaceChildren(heading("col", "Part"), ...now.servers.map((s) => heading("col", s.name)));
  byId("health-body").replaceChildren(...now.parts.map((part) => {
    const row = element("tr", "", heading("row", part));
    row.append(...now.servers.map((s) => element("td", "", cell(s, part))));
    return row;
  }));
  byId("reasons").replaceChildren(...now.servers.filter((s) => !away(s)).flatMap((s) =>
    problemsOf(s).map(([part, why]) => element("li", "", element("b", "", s.name + " " + part), ": " + why))));
}

function heading(scope, text) {
  const th = element("th", "", text);
  th.scope = scope;
  return th;
}

function cell(s, part) {
  const why = s.problems?.[part];
  const [css, mark, word] = away(s) ? ["dim", "?", "unknown"] : why ? ["bad", "!", "problem"] : ["good", "✓", "well"];
  const icon = element("i", "", mark);
  icon.setAttribute("aria-hidden", "true");
  const span = element("span", css, icon, word);
  if (why && css === "bad") {
    span.title = why;
  }
  return span;
}

function showAlerts(alerts) {
  const words = { ok: ["good", "quiet"], pending: ["warn", "pending"], firing: ["bad", "firing"] };
  byId("alerts").replaceChildren(...alerts.map((a) => {
    const [css, word] = words[a.state];
    const rule = "above " + a.above.toLocaleString("en") + " " + a.unit + " for " + a.for.replace(/(\d)([a-z])/g, "$1 $2") + (a.since ? ", since " + hour(a.since) : "");
    return element("li", "", element("span", "", a.name), element("span", "word " + css, word), element("small", "", rule));
  }));
  if (!alerts.length) {
    byId("alerts").append(element("li", "none", "The site file has no alerts."));
  }
}

function showEvents(events) {
  byId("events").replaceChildren(...events.map((e) => element("li", "", element("time", "", hour(e.t)), element("span", "", e.text))));
  if (!events.length) {
    byId("events").append(element("li", "none", "Nothing has happened yet."));
  }
}

// showFigures writes the numbers of the newest second.
export function showFigures(now, series) {
  const t = series.complete(now.servers.filter((s) => s.reachable).map((s) => s.name));
  const rows = series.rows(t);
  byId("qps").textContent = figure(sum(rows, QPS));
  setTime("p50", median(rows));
  setTime("p99", slowest(rows));
  setFigure("errors", sum(rows, ERRORS), "per s");
  setFigure("queries", sum(rows, QUERIES), "queries/s");
  byId("errors").className = sum(rows, ERRORS) > 0 ? "bad" : "";
  for (const s of now.servers) {
    showRow(byId("server-" + s.name), s.reachable ? series.at(s.name, t) : undefined);
  }
}

const percent = (v) => figure(v) + " %";
const figure = (v) => (v >= 100 ? Math.round(v).toLocaleString("en") : v > 0 && v < 10 ? v.toFixed(1) : String(Math.round(v)));

function setFigure(id, v, unit) {
  byId(id).replaceChildren(v == null ? "–" : figure(v), " ", element("small", "", v == null ? "" : unit));
}

// setTime writes milliseconds, or seconds from one on.
function setTime(id, v) {
  const long = v >= 1000;
  setFigure(id, long ? v / 1000 : v, long ? "s" : "ms");
}

function showRow(card, row) {
  card.querySelector(".number").textContent = row ? figure(row[SERVED]) : "–";
  for (const [css, column] of [["cpu", CPU], ["memory", MEMORY]]) {
    card.querySelector("progress." + css).value = row ? row[column] : 0;
    card.querySelector("." + css + "-text").textContent = row ? percent(row[column]) : "–";
  }
}
