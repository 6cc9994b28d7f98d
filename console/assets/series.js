// Series holds the last hour of each server's points by second.

// Positions in a row; console/events.go writes them.
export const T = 0, QPS = 1, ERRORS = 2, P50 = 3, P99 = 4, CPU = 5, MEMORY = 6, QUERIES = 7, IN_FLIGHT = 8, DROPPED = 9, SERVED = 10;

const HOUR = 3600;

export class Series {
  servers = [];
  points = new Map(); // by server: Map of second → row
  newest = 0;
  oldest = Infinity; // ever seen

  setServers(names) {
    this.servers = names;
    for (const name of names) {
      if (!this.points.has(name)) {
        this.points.set(name, new Map());
      }
    }
  }

  add(rows) {
    for (const [server, list] of Object.entries(rows)) {
      const known = this.points.get(server) ?? new Map();
      this.points.set(server, known);
      for (const row of list) {
        known.set(row[T], row);
        this.newest = Math.max(this.newest, row[T]);
        this.oldest = Math.min(this.oldest, row[T]);
      }
      this.forget(known);
    }
  }

  forget(known) {
    if (known.size <= HOUR + 60) {
      return;
    }
    for (const t of known.keys()) {
      if (t < this.newest - HOUR) {
        known.delete(t);
      }
    }
  }

  // at returns a server's row of the second t, or undefined where there is a gap.
  at(server, t) {
    return this.points.get(server)?.get(t);
  }

  // complete is the newest second that every server which still reports has reported.
  complete(reachable) {
    const all = (t) => reachable.every((s) => this.at(s, t));
    for (let t = this.newest; t > this.newest - 4; t--) {
      if (all(t)) {
        return t;
      }
    }
    return this.newest;
  }

  // rows are all servers' rows of one second, without gaps.
  rows(t) {
    return this.servers.map((s) => this.at(s, t)).filter(Boolean);
  }
}

export function sum(rows, column) {
  return rows.reduce((total, row) => total + row[column], 0);
}

// median is the servers' median times, weighed by their requests.
export function median(rows) {
  const requests = sum(rows, QPS);
  return requests > 0 ? rows.reduce((total, row) => total + row[P50] * row[QPS], 0) / requests : null;
}

// slowest is the worst of the servers' 99th percentiles.
export function slowest(rows) {
  const worst = Math.max(0, ...rows.map((row) => row[P99]));
  return worst > 0 ? worst : null;
}
