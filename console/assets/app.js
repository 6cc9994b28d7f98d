// The console's page: takes the events of /api/events and keeps the page so.
import { Charts } from "./charts.js";
import { Series } from "./series.js";
import { showNow, showFigures } from "./page.js";

const series = new Series();
const charts = new Charts(series);
const live = document.getElementById("live");
const liveText = document.getElementById("live-text");
let now = null;
let heard = 0;
let range = 300;

function connect() {
  const events = new EventSource("/api/events");
  events.addEventListener("now", (e) => {
    now = JSON.parse(e.data);
    series.setServers(now.servers.map((s) => s.name));
    charts.build();
    showNow(now);
  });
  events.addEventListener("points", (e) => {
    heard = Date.now();
    setLive("on", "live");
    series.add(JSON.parse(e.data));
    if (now) {
      showFigures(now, series);
      charts.draw(range);
    }
  });
  events.onerror = () => {
    setLive("off", "reconnecting");
    if (events.readyState === EventSource.CLOSED) {
      recover();
    }
  };
}

// recover is for answers that a browser does not try again by itself: a session that ended, a restart.
async function recover() {
  const answer = await fetch("/api/now").catch(() => null);
  if (answer && answer.status === 401) {
    location.reload();
    return;
  }
  setTimeout(connect, 2000);
}

function setLive(state, text) {
  if (live.dataset.state !== state) {
    live.dataset.state = state;
    liveText.textContent = text;
  }
}

setInterval(() => {
  if (heard && Date.now() - heard > 4000) {
    setLive("off", "no data");
  }
}, 1000);

for (const button of document.querySelectorAll("[data-range]")) {
  button.addEventListener("click", () => choose(button));
}

async function choose(button) {
  for (const other of document.querySelectorAll("[data-range]")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  range = Number(button.dataset.range);
  document.getElementById("range-text").textContent = range === 300 ? "5 minutes" : "hour";
  if (range > 300) {
    const answer = await fetch("/api/points?after=" + (Math.floor(Date.now() / 1000) - range));
    if (answer.ok) {
      series.add(await answer.json());
    }
  }
  charts.draw(range);
}

connect();
