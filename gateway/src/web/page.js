"use strict";
// Everything a daemon says is put on the page as text, never as markup: names of sites, drops and events come from others.
(() => {
  const $ = id => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // An element with attributes (class, text, ...) and children.
  function el(name, attributes = {}, ...children) {
    return fill(document.createElement(name), attributes, children);
  }
  function svg(name, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, name), attributes, children);
  }
  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (key === "text") node.textContent = value;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter(child => child !== null && child !== undefined));
    return node;
  }
  function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }
  function put(node, name, value) {
    if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
  // Makes the children of `node` those of `items`, in their order; what is there already stays, with its focus and its scrolling.
  function sync(node, items, keyOf, make, renew) {
    const known = new Map();
    for (const child of [...node.children]) known.set(child.dataset.key, child);
    let at = node.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let child = known.get(key);
      if (child) known.delete(key);
      else { child = make(item); child.dataset.key = key; }
      renew(child, item);
      if (child === at) at = at.nextElementSibling;
      else node.insertBefore(child, at);
    }
    for (const child of known.values()) child.remove();
  }

  // ---- Words and figures

  const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const whole = number => grouped.format(number ?? 0);
  function short(number, unit = "") {
    let at = 0;
    let value = Math.abs(number);
    while (value >= 999.5 && at < 5) { value /= 1000; at += 1; }
    const digits = value === 0 || value >= 99.95 || (at === 0 && Number.isInteger(value)) ? 0 : value >= 9.995 ? 1 : 2;
    return `${number < 0 ? "−" : ""}${value.toFixed(digits)} ${["", "k", "M", "G", "T", "P"][at]}${unit}`.trim();
  }
  function percent(part, all) {
    if (!all) return "–";
    const share = part * 100 / all;
    return `${share > 0 && share < 0.1 ? "<0.1" : share.toFixed(share === 100 || share === 0 ? 0 : 1)} %`;
  }
  function span(seconds) {
    if (seconds === null || seconds === undefined) return "never";
    const s = Math.floor(seconds);
    const two = number => String(number).padStart(2, "0");
    if (s >= 86400) return `${Math.floor(s / 86400)}d ${two(Math.floor(s / 3600) % 24)}h`;
    return `${two(Math.floor(s / 3600))}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  }
  function rtt(micros) {
    return micros === null || micros === undefined ? "no RTT" : `${(micros / 1000).toFixed(micros < 10000 ? 2 : 1)} ms`;
  }
  function clock(milliseconds) {
    return new Date(milliseconds).toLocaleTimeString("en-GB");
  }
  const many = (count, one, more) => `${whole(count)} ${count === 1 ? one : more}`;
  const isV6 = address => String(address).includes(":");
  const inInstance = (instance, prefix) => (instance ? `[${instance}]${prefix}` : String(prefix));
  const GOOD = { up: "ok", unprobed: "idle", recovering: "warn" };
  const mood = state => GOOD[state] ?? "bad";

  // ---- What came: the latest look, and counters of the last ten minutes

  let view = null;
  let samples = [];
  const KEPT_MS = 610000;
  const count = (sample, name) => sample.counters[name] ?? 0;

  function receive(message) {
    const before = view;
    view = message;
    const began = view.unix_milliseconds - view.status.uptime_seconds * 1000;
    const restarted = before && (view.status.uptime_seconds < before.status.uptime_seconds);
    if (restarted) {
      samples = [];
      for (const cached of Object.values(past)) cached.at = 0;
      list.restart();
      flash = { text: `restarted at ${clock(began)}`, until: view.unix_milliseconds + 10000 };
    }
    const drops = {};
    for (const drop of view.drops) drops[drop.reason] = drop.count;
    samples.push({ at: view.unix_milliseconds, counters: pick(view.counters), drops, migration: view.migration?.report, aged: view.migration?.age_seconds });
    while (samples.length > 2 && samples[0].at < view.unix_milliseconds - KEPT_MS) samples.shift();
    // Reports are large and looked back at for a minute only.
    const old = samples[samples.length - 90];
    if (old) old.migration = undefined;
    draw();
  }
  function pick(counters) {
    const kept = {};
    for (const name in counters) if (!name.startsWith("drop_")) kept[name] = counters[name];
    return kept;
  }
  // The newest sample that is at least so old; else the oldest one there is.
  function ago(milliseconds) {
    const now = samples[samples.length - 1].at;
    for (let at = samples.length - 1; at >= 0; at -= 1) if (samples[at].at <= now - milliseconds) return samples[at];
    return samples[0];
  }
  function rate(name, over = 1900) {
    const now = samples[samples.length - 1];
    const then = ago(over);
    const seconds = (now.at - then.at) / 1000;
    return seconds > 0 ? Math.max(0, count(now, name) - count(then, name)) / seconds : 0;
  }
  const isRouter = () => view.status.role !== "mapping";

  let drawing = false;
  function draw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      if (!view) return;
      for (const part of [drawHeader, drawTiles, drawCharts, drawMigration, drawTopology, drawDrops, drawEvents, list.total]) part();
      if ($("main").getAttribute("aria-busy") === "true") {
        $("main").setAttribute("aria-busy", "false");
        performance.mark("shown");
      }
    });
  }

  // ---- Header

  let flash = null;
  function drawHeader() {
    const { status } = view;
    say($("name"), status.name);
    document.title = `${status.healthy ? "" : "▲ "}${status.name} · Isthmus`;
    say($("role"), { gateway: "gateway: PITR, PETR, RTR", xtr: "xTR: ITR, ETR", mapping: "Map-Server, Map-Resolver" }[status.role] ?? status.role);
    $("role").hidden = false;
    $("health").className = `state ${status.healthy ? "ok" : "bad"}`;
    say($("health"), status.healthy ? "healthy" : "not healthy");
    say($("version"), `version ${status.version}`);
    say($("uptime"), `up for ${span(status.uptime_seconds)}`);
    const notes = [...status.notes, ...(status.peers ?? [])];
    $("notes").hidden = notes.length === 0;
    sync($("notes"), notes, note => note, () => el("p"), say);
    document.body.dataset.role = status.role;
    for (const [id, shown] of [["s-drops", true], ["h-family", isRouter()], ["chart-family", isRouter()]]) $(id).hidden = !shown;
    say($("h-traffic"), isRouter() ? "Traffic" : "Messages");
    $("unit").hidden = !isRouter();
    $("period").hidden = !isRouter();
    say($("h-topology"), isRouter() ? "Topology" : "Sites");
    say($("h-drops"), isRouter() ? "Drops" : "Discarded messages");
    say($("no-drops"), `Nothing was ${isRouter() ? "dropped" : "discarded"} since the start.`);
    say($("h-list"), isRouter() ? "Map-cache" : "Registrations");
    put($("q"), "placeholder", isRouter() ? "EID, EID-prefix, rloc ADDRESS, or words such as: drop" : "EID-prefix, rloc ADDRESS, site or other words");
  }

  // ---- Key figures

  function drawTiles() {
    const drops = view.drops.reduce((sum, drop) => sum + drop.count, 0);
    const dropped = dropRates();
    const worst = [...dropped].sort((a, b) => b[1] - a[1])[0];
    const droppedNow = [...dropped.values()].reduce((sum, one) => sum + one, 0);
    const lost = { key: "drops", what: isRouter() ? "Dropped" : "Discarded", much: short(droppedNow), unit: "/s", bad: droppedNow > 0,
      more: worst && worst[1] > 0 ? `most: ${worst[0]}` : `${whole(drops)} since start`, trend: sample => Object.values(sample.drops).reduce((a, b) => a + b, 0) };
    let tiles;
    if (isRouter()) {
      const rlocs = view.rlocs ?? {};
      const states = rlocs.by_state ?? {};
      const up = (states.up ?? 0) + (states.unprobed ?? 0);
      const flow = (key, what, name) => ({ key, what, much: short(rate(`${name}_octets`) * 8), unit: "bit/s", more: `${short(rate(`${name}_packets`))} packets/s`, trend: sample => count(sample, `${name}_octets`) });
      tiles = [
        flow("out", "To the core", "core_out"),
        flow("in", "From the core", "core_in"),
        lost,
        { key: "cache", what: "Map-cache", much: short(view.counters.map_cache_entries ?? 0), unit: "entries", more: `${whole(view.counters.lookups_outstanding)} lookups, ${whole(view.counters.held)} packets held`, trend: sample => count(sample, "map_requests_sent") },
        { key: "rlocs", what: "Remote RLOCs up", much: `${whole(up)}`, unit: `of ${whole(rlocs.total)}`, more: rlocs.total ? downWords(states) : "the map-cache is empty", bad: up < (rlocs.total ?? 0) },
      ];
    } else {
      const flow = (key, what, name, more) => ({ key, what, much: short(rate(name)), unit: "/s", more, trend: sample => count(sample, name) });
      tiles = [
        { key: "reg", what: "Registered", much: short(view.counters.eid_prefixes_registered ?? 0), unit: "EID-prefixes", more: `of ${many(view.sites?.length ?? 0, "site", "sites")}` },
        flow("registers", "Map-Registers", "map_registers_received", `${whole(view.counters.records_accepted)} records accepted`),
        flow("requests", "Lookups", "map_requests_received", `${whole(view.counters.negative_map_replies_sent)} answered negatively`),
        lost,
        { key: "subs", what: "Subscriptions", much: short(view.counters.subscriptions ?? 0), unit: "", more: `${whole(view.counters.publications_sent)} publications` },
      ];
    }
    sync($("tiles"), tiles, tile => tile.key, makeTile, renewTile);
  }
  function downWords(states) {
    const bad = Object.entries(states).filter(([state]) => state !== "up" && state !== "unprobed");
    if (bad.length) return bad.map(([state, number]) => `${whole(number)} ${state}`).join(", ");
    return states.unprobed ? `${whole(states.unprobed)} not probed` : "all answer probes";
  }
  function makeTile() {
    return el("div", { class: "tile" }, el("p", { class: "what" }), el("p", { class: "much" }, el("span"), el("small")), el("p", { class: "more" }),
      svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path")));
  }
  function renewTile(node, tile) {
    put(node, "class", `tile${tile.bad ? " bad" : ""}`);
    const [what, much, more, trend] = node.children;
    say(what, tile.what);
    say(much.firstChild, tile.much);
    say(much.lastChild, tile.unit ? ` ${tile.unit}` : "");
    say(more, tile.more ?? "");
    put(more, "title", tile.more ?? "");
    put(trend.firstChild, "d", tile.trend ? sparkline(tile.trend) : "");
  }
  // How fast something grew in the last two minutes.
  function sparkline(value) {
    const recent = samples.slice(-121);
    const rates = [];
    for (let at = 2; at < recent.length; at += 2) {
      const seconds = (recent[at].at - recent[at - 2].at) / 1000;
      rates.push(seconds > 0 ? Math.max(0, value(recent[at]) - value(recent[at - 2])) / seconds : 0);
    }
    const most = Math.max(...rates);
    if (rates.length < 3 || !(most > 0)) return "";
    return rates.map((one, at) => `${at ? "L" : "M"}${(100 - (rates.length - 1 - at) * 100 / 59).toFixed(1)} ${(28 - one / most * 25).toFixed(1)}`).join("");
  }

  // ---- Charts

  const FLOWS = [
    ["k1", "native_in", "from the native side"], ["k2", "core_out", "to the core"],
    ["k3", "core_in", "from the core"], ["k4", "native_out", "to the native side"],
  ];
  const FAMILIES = [
    ["f3", "ipv6_in_ipv6", "IPv6 in IPv6"], ["f2", "ipv6_in_ipv4", "IPv6 in IPv4"],
    ["f1", "ipv4_in_ipv6", "IPv4 in IPv6"], ["f0", "ipv4_in_ipv4", "IPv4 in IPv4"],
  ];
  const MESSAGES = [
    ["k1", "map_registers_received", "Map-Registers"], ["k2", "map_requests_received", "lookups"],
    ["k3", "messages_discarded", "discarded"], ["k4", "messages_sent", "sent"],
  ];
  const RINGS = [600, 7200, 86400];
  const chosen = { unit: "octets", range: 0, period: "minute" };
  // By range: what the daemon remembers from before the page was opened.
  const past = {};

  async function fetchPast(range) {
    const known = past[range];
    const now = Date.now();
    if (known && now - known.at < (range === 0 ? 60000 : 20000)) return;
    past[range] = { ...known, at: now };
    const names = isRouter()
      ? [...FLOWS.flatMap(([, name]) => [`${name}_packets`, `${name}_octets`]), ...FAMILIES.flatMap(([, name]) => [`sent_${name}_packets`, `received_${name}_packets`])]
      : MESSAGES.map(([, name]) => name);
    try {
      const ring = await getJson(`api/history?ring=${range}&counters=${names.join(",")}`);
      const stamp = view.unix_milliseconds;
      const points = ring.age_milliseconds.map((age, at) => {
        const counters = {};
        for (const name of names) counters[name] = ring.counters[name]?.[at] ?? null;
        return { at: stamp - age, counters };
      });
      past[range] = { at: now, points, stamp };
      draw();
    } catch { past[range] = { ...known, at: now }; }
  }
  // Points in time with counters: what the daemon remembers, then what came since.
  function points() {
    fetchPast(chosen.range);
    const remembered = past[chosen.range]?.points ?? [];
    const last = remembered.length ? remembered[remembered.length - 1].at : 0;
    const own = chosen.range === 0 ? samples.filter((sample, at) => sample.at > last + 900 && (at % 2 === samples.length % 2 || samples.length < 20)) : [];
    return [...remembered.filter(point => !samples.length || point.at >= view.unix_milliseconds - view.status.uptime_seconds * 1000 - 2500), ...own];
  }
  function rates(all, name, factor) {
    const found = [];
    for (let at = 1; at < all.length; at += 1) {
      const before = all[at - 1].counters[name];
      const after = all[at].counters[name];
      const seconds = (all[at].at - all[at - 1].at) / 1000;
      const gap = before === null || before === undefined || after === null || after === undefined || seconds <= 0;
      found.push({ at: all[at].at, value: gap ? 0 : Math.max(0, after - before) / seconds * factor });
    }
    return found;
  }
  function drawCharts() {
    const all = points();
    if (isRouter()) {
      const [suffix, factor, unit] = chosen.unit === "octets" ? ["octets", 8, "bit/s"] : ["packets", 1, "packets/s"];
      flowChart.show(FLOWS.map(([mark, name, said]) => ({ mark, said, up: rates(all, `${name}_${suffix}`, factor) })), unit);
      familyChart.show(FAMILIES.map(([mark, name, said]) => ({ mark, said, up: rates(all, `sent_${name}_packets`, 1), down: rates(all, `received_${name}_packets`, 1) })), "packets/s");
    } else {
      flowChart.show(MESSAGES.map(([mark, name, said]) => ({ mark, said, up: rates(all, name, 1) })), "messages/s");
    }
  }

  // Lines, or areas on top of each other: `up` above the axis, `down` below it.
  function chart(host, stacked) {
    const axis = svg("g", { class: "axis" });
    const shapes = svg("g", { class: stacked ? "areas" : "lines" });
    const hair = svg("line", { class: "hair", visibility: "hidden" });
    const picture = svg("svg", { role: "img" }, axis, shapes, hair);
    const legend = el("div", { class: "legend" });
    const tip = el("div", { class: "tip", hidden: true });
    host.append(picture, legend, tip);
    let width = 600;
    let height = 180;
    let last = null;
    let pointer = null;
    new ResizeObserver(() => { width = picture.clientWidth || 600; height = picture.clientHeight || 180; if (last) render(); }).observe(picture);
    picture.addEventListener("pointermove", event => { pointer = event.offsetX; point(); });
    picture.addEventListener("pointerleave", () => { pointer = null; point(); });
    const LEFT = 54, RIGHT = 8, TOP = 10, BOTTOM = 20;

    function nice(most) {
      if (!(most > 0)) return { step: 1, top: 1 };
      const rough = most / (stacked ? 2 : 4);
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map(factor => factor * power).find(one => one >= rough);
      return { step, top: Math.ceil(most / step) * step };
    }
    function render() {
      const { series, unit } = last;
      const end = view.unix_milliseconds;
      const start = end - RINGS[chosen.range] * 1000;
      const x = at => LEFT + (at - start) / (end - start) * (width - LEFT - RIGHT);
      const times = series[0]?.up ?? [];
      const layers = stack(series, times.length);
      const most = Math.max(0, ...layers.map(layer => layer.most));
      const least = Math.max(0, ...layers.map(layer => layer.least));
      const { step, top } = nice(Math.max(most, least));
      const low = stacked ? -top : 0;
      const y = value => TOP + (top - value) / (top - low) * (height - TOP - BOTTOM);
      const marks = [];
      for (let value = low; value <= top + step / 2; value += step) marks.push(Math.abs(value) < step / 2 ? 0 : value);
      axis.replaceChildren(
        ...marks.flatMap(value => [
          svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: value === 0 ? "zero" : null }),
          svg("text", { x: LEFT - 7, y: y(value) + 4, "text-anchor": "end", text: short(Math.abs(value)).replace(/\.0+(?= |$)|(\.\d*[1-9])0+(?= |$)/, "$1") }),
        ]),
        ...timeMarks(start, end).map(at => svg("text", { x: x(at), y: height - 4, "text-anchor": "middle", text: new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" }) })));
      sync(shapes, layers, layer => layer.key, layer => svg("path", { class: layer.mark }), (node, layer) => {
        const visible = times.map((one, at) => [one.at, at]).filter(([at]) => at >= start - 5000 && at <= end);
        const line = (values, back) => (back ? [...visible].reverse() : visible).map(([at, n]) => `${Math.max(LEFT, x(at)).toFixed(1)} ${y(values[n]).toFixed(1)}`).join("L");
        put(node, "d", visible.length < 2 ? "" : stacked ? `M${line(layer.to)}L${line(layer.from, true)}Z` : `M${line(layer.to)}`);
      });
      sync(legend, series, one => one.mark, one => el("span", { class: one.mark }, el("i"), one.said, el("b")), (node, one) => {
        say(node.lastChild, stacked ? "" : short(one.up[one.up.length - 1]?.value ?? 0, unit));
      });
      put(picture, "aria-label", `${host.dataset.title}: ${series.map(one => `${one.said} ${short(one.up[one.up.length - 1]?.value ?? 0)} ${unit}${one.down ? ` sent, ${short(one.down[one.down.length - 1]?.value ?? 0)} ${unit} received` : ""}`).join("; ")}`);
      point();
    }
    function stack(series, length) {
      const above = new Array(length).fill(0);
      const below = new Array(length).fill(0);
      return series.flatMap(one => {
        const grow = (values, sum, sign, key) => {
          const from = stacked ? sum.map(value => sign * value) : [];
          const to = values.map((point, at) => { const value = stacked ? sum[at] + point.value : point.value; if (stacked) sum[at] = value; return sign * value; });
          const peak = to.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
          return { key: `${one.mark}${key}`, mark: one.mark, from, to, most: sign > 0 ? peak : 0, least: sign < 0 ? peak : 0 };
        };
        return one.down ? [grow(one.up, above, 1, "up"), grow(one.down, below, -1, "down")] : [grow(one.up, above, 1, "up")];
      });
    }
    function timeMarks(start, end) {
      const every = [120000, 1800000, 14400000][chosen.range] * (width < 420 ? 2 : 1);
      const offset = new Date().getTimezoneOffset() * 60000;
      const found = [];
      for (let at = Math.ceil((start - offset) / every) * every + offset; at <= end - every / 9; at += every) if (at > start + every / 6) found.push(at);
      return found;
    }
    // What was under the pointer.
    function point() {
      const times = last?.series[0]?.up ?? [];
      if (pointer === null || !times.length) { tip.hidden = true; hair.setAttribute("visibility", "hidden"); return; }
      const end = view.unix_milliseconds;
      const start = end - RINGS[chosen.range] * 1000;
      const wanted = start + (pointer - LEFT) / (width - LEFT - RIGHT) * (end - start);
      let best = 0;
      for (let at = 1; at < times.length; at += 1) if (Math.abs(times[at].at - wanted) < Math.abs(times[best].at - wanted)) best = at;
      const x = LEFT + (times[best].at - start) / (end - start) * (width - LEFT - RIGHT);
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", TOP], ["y2", height - BOTTOM], ["visibility", "visible"]]) hair.setAttribute(name, value);
      tip.replaceChildren(el("p", { class: "quiet", text: clock(times[best].at) }), ...last.series.map(one => el("p", { class: one.mark }, el("span", {}, el("i"), one.said),
        el("b", { text: one.down ? `▲ ${short(one.up[best].value)}  ▼ ${short(one.down[best].value)}` : short(one.up[best].value, last.unit) }))));
      tip.hidden = false;
      const left = x > width / 2 ? x - tip.offsetWidth - 10 : x + 10;
      tip.style.left = `${Math.max(0, left)}px`;
    }
    return { show(series, unit) { last = { series, unit }; render(); } };
  }
  $("chart-flow").dataset.title = "Traffic";
  $("chart-family").dataset.title = "By family";
  const flowChart = chart($("chart-flow"), false);
  const familyChart = chart($("chart-family"), true);

  function switches(id, name, convert = value => value) {
    for (const button of $(id).children) button.addEventListener("click", () => {
      chosen[name] = convert(button.dataset.value);
      for (const other of $(id).children) other.setAttribute("aria-pressed", String(other === button));
      draw();
    });
  }
  switches("unit", "unit");
  switches("range", "range", Number);
  switches("period", "period");

  // ---- Migration

  const OFFERS = [["v4", "ipv4", "IPv4 RLOCs only"], ["v6", "ipv6", "IPv6 RLOCs only"], ["both", "both", "both"], ["none", "none", "no RLOC"]];
  const sumOf = (list, wanted, field = "octets") => list.reduce((sum, one) => (wanted(one) ? sum + one[field] : sum), 0);

  // The octets of classes since the start, or of the last minute.
  function since(name, keyOf) {
    const now = view.migration.report[name] ?? [];
    if (chosen.period === "start") return now;
    const then = samples.find(sample => sample.at >= view.unix_milliseconds - 61000 && sample.migration)?.migration;
    const before = new Map((then?.[name] ?? []).map(one => [keyOf(one), one]));
    return now.map(one => {
      const old = before.get(keyOf(one));
      return { ...one, octets: Math.max(0, one.octets - (old?.octets ?? 0)), packets: Math.max(0, one.packets - (old?.packets ?? 0)), over_ipv4: Math.max(0, one.over_ipv4 - (old?.over_ipv4 ?? 0)),
        over_ipv6: Math.max(0, one.over_ipv6 - (old?.over_ipv6 ?? 0)), through_petr: Math.max(0, one.through_petr - (old?.through_petr ?? 0)) };
    });
  }
  function drawMigration() {
    const host = $("migration");
    if (!view.migration?.report) return;
    const report = view.migration.report;
    const shares = [];
    const share = (key, title, unit, parts) => shares.push({ key, title, unit, parts: parts.map(([mark, said, value]) => ({ mark, said, value })) });
    if (report.registered !== undefined) {
      offers(share, report.offers, family => `Registered ${family} EID-prefixes, by what they can be reached over`);
    } else {
      const sent = since("sent", one => `${one.inner} ${one.outer} ${one.way}`);
      const received = since("received", one => `${one.inner} ${one.outer}`);
      const families = (list, side) => [["v4", "IPv4", sumOf(list, one => one[side] === "ipv4")], ["v6", "IPv6", sumOf(list, one => one[side] === "ipv6")]];
      share("sent-inner", "Sent: inside the tunnel", "octets", families(sent, "inner"));
      share("sent-outer", "Sent: the tunnel itself", "octets", families(sent, "outer"));
      share("received-inner", "Received: inside the tunnel", "octets", families(received, "inner"));
      share("received-outer", "Received: the tunnel itself", "octets", families(received, "outer"));
      if (view.status.role === "gateway") {
        const grown = name => (chosen.period === "start" ? view.counters[name] ?? 0 : Math.max(0, (view.counters[name] ?? 0) - count(ago(60000), name)));
        share("roles", "Through this proxy", "packets", [["petr", "to LISP sites (PITR)", grown("pitr_encap")], ["direct", "from LISP sites (PETR)", grown("petr_decap")], ["third", "between them (RTR)", grown("rtr_reencap")]]);
      } else {
        share("way", "Sent: way", "octets", [["direct", "direct, site to site", sumOf(sent, one => one.way === "direct")], ["petr", "through a proxy (PETR)", sumOf(sent, one => one.way === "petr")]]);
      }
      offers(share, report.offers, family => `${family} EID-prefixes of the map-cache, by what they can be reached over`);
    }
    if (!host.firstChild) host.append(el("div"), el("h3", { class: "sub" }), el("div", { class: "scroll", tabindex: "0" }), el("p", { class: "quiet" }));
    sync(host.children[0], shares, one => one.key, makeShare, renewShare);
    if (report.registered !== undefined) drawSiteOffers(host, report);
    else drawSites(host, report);
  }
  function offers(share, list, title) {
    for (const [family, name] of [["ipv4", "IPv4"], ["ipv6", "IPv6"]]) {
      const mappings = wanted => sumOf(list, one => one.inner === family && one.locators === wanted, "mappings");
      share(`offers-${family}`, title(name), "", OFFERS.map(([mark, key, said]) => [mark, said, mappings(key)]));
    }
  }
  function makeShare() {
    return el("div", { class: "share" }, el("p", { class: "title" }, el("span"), el("b")), el("div", { class: "bar", role: "img" }), el("p", { class: "keys" }));
  }
  function renewShare(node, share) {
    const all = share.parts.reduce((sum, part) => sum + part.value, 0);
    const [title, bar, keys] = node.children;
    say(title.firstChild, share.title);
    say(title.lastChild, all ? `${short(all)}${share.unit ? ` ${share.unit}` : ""}` : "nothing");
    fillBar(bar, share.parts, all);
    put(bar, "aria-label", `${share.title}: ${share.parts.map(part => `${part.said} ${percent(part.value, all)}`).join(", ")}`);
    const shown = share.parts.filter(part => part.value > 0 || share.parts.length < 4);
    sync(keys, shown, part => part.mark, part => el("span", { class: part.mark }, el("i"), el("span"), el("b")), (key, part) => {
      say(key.children[1], `${part.said} `);
      say(key.lastChild, share.unit ? percent(part.value, all) : whole(part.value));
    });
  }
  function fillBar(bar, parts, all) {
    sync(bar, all ? parts.filter(part => part.value > 0) : [], part => part.mark, part => el("i", { class: part.mark }), (node, part) => {
      node.style.flex = `${(part.value / all).toFixed(4)} 1 0`;
    });
  }
  function tableOf(host, headings) {
    if (host.dataset.headings !== headings.join()) {
      host.dataset.headings = headings.join();
      host.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...headings.map(text => el("th", { scope: "col", class: text.startsWith("#") ? "n" : null, text: text.replace("#", "") })))), el("tbody")));
    }
    return host.querySelector("tbody");
  }
  function drawSites(host, report) {
    const sites = since("sites", one => `${one.instance_id} ${one.prefix}`).filter(site => site.octets > 0).sort((a, b) => b.octets - a.octets).slice(0, 50);
    say(host.children[1], sites.length ? "Sent, by site" : "");
    host.children[2].hidden = sites.length === 0;
    const body = tableOf(host.children[2], ["EID-prefix", "Over IPv4 / IPv6", "#PETR", "#Octets"]);
    sync(body, sites, site => inInstance(site.instance_id, site.prefix), site => el("tr", {},
      el("td", { class: "mono", text: inInstance(site.instance_id, site.prefix) }), el("td", {}, el("div", { class: "bar thin", role: "img" })), el("td", { class: "n" }), el("td", { class: "n" })), (row, site) => {
      const bar = row.children[1].firstChild;
      fillBar(bar, [{ mark: "v4", value: site.over_ipv4 }, { mark: "v6", value: site.over_ipv6 }], site.octets);
      put(bar, "aria-label", `${percent(site.over_ipv4, site.octets)} over IPv4, ${percent(site.over_ipv6, site.octets)} over IPv6`);
      say(row.children[2], percent(site.through_petr, site.octets));
      say(row.children[3], short(site.octets));
    });
    const age = view.migration.age_seconds;
    say(host.children[3], [report.sites_left_out ? `and ${whole(report.sites_left_out)} sites with less` : "", age > 5 ? `as of ${Math.round(age)} s ago: the map-cache is long` : ""].filter(Boolean).join("; "));
  }
  function drawSiteOffers(host, report) {
    say(host.children[1], report.by_site.length ? "By site: EID-prefixes by the families of their RLOCs" : "");
    host.children[2].hidden = report.by_site.length === 0;
    const body = tableOf(host.children[2], ["Site", "IPv4 EID-prefixes", "IPv6 EID-prefixes"]);
    sync(body, report.by_site, site => site.site, site => el("tr", {}, el("td", { text: site.site }), el("td", {}, el("div", { class: "bar thin", role: "img" })), el("td", {}, el("div", { class: "bar thin", role: "img" }))), (row, site) => {
      [["ipv4", 1], ["ipv6", 2]].forEach(([family, at]) => {
        const parts = OFFERS.map(([mark, key, said]) => ({ mark, said, value: sumOf(site.offers, one => one.inner === family && one.locators === key, "mappings") }));
        const all = parts.reduce((sum, part) => sum + part.value, 0);
        const bar = row.children[at].firstChild;
        fillBar(bar, parts, all);
        const said = parts.filter(part => part.value).map(part => `${part.value} ${part.said}`).join(", ") || "none";
        put(bar, "aria-label", said);
        put(bar, "title", said);
      });
    });
    say(host.children[3], report.sites_left_out ? `and ${whole(report.sites_left_out)} more sites` : "");
  }

  // ---- Topology

  const MOST_ROWS = 40;
  function drawTopology() {
    drawSelf();
    if (isRouter()) drawRlocs();
    else drawRegistrants();
    wire();
  }
  function facts(node, title, pairs) {
    if (!node.firstChild) node.append(el("h3"), el("dl"));
    say(node.firstChild, title);
    const list = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "").flatMap(([name, value]) => [["dt", name], ["dd", value]]);
    const same = [...node.lastChild.children].map(child => child.tagName.toLowerCase() + child.textContent).join("\n") === list.map(([tag, text]) => tag + text).join("\n");
    if (!same) node.lastChild.replaceChildren(...list.map(([tag, text]) => el(tag, { text, class: tag === "dd" && /\d/.test(text) ? "mono" : null })));
  }
  function drawSelf() {
    const { status } = view;
    const own = (view.interfaces ?? []).flatMap(link => link.uses.filter(use => use.startsWith("rloc ")).map(use => [use.slice(5), link]));
    facts($("self"), status.name, isRouter()
      ? [...own.map(([rloc, link]) => [`own RLOC, ${link.name}${link.state === "up" ? "" : ` (${link.state})`}`, rloc]), ["packets from the native side", status.intake]]
      : [["EID-prefixes registered", whole(view.counters.eid_prefixes_registered)], ["nonces remembered", whole(view.counters.nonces)]]);
    const nodes = [];
    if (status.role === "gateway") nodes.push({ key: "net", title: "Non-LISP Internet", pairs: [["to LISP sites (PITR)", `${short(rate("pitr_encap"))} packets/s`], ["from them (PETR)", `${short(rate("petr_decap"))} packets/s`], ["between them (RTR)", `${short(rate("rtr_reencap"))} packets/s`]] });
    if (status.role === "xtr") {
      const byPrefix = new Map();
      for (const one of view.registrations ?? []) {
        const key = inInstance(one.instance_id, one.prefix);
        byPrefix.set(key, [...(byPrefix.get(key) ?? []), `${one.state} at ${one.map_server}`]);
      }
      for (const [prefix, said] of [...byPrefix].slice(0, 8)) nodes.push({ key: prefix, title: prefix, pairs: [["own EID-prefix", said.join("; ")]] });
      if (byPrefix.size > 8) nodes.push({ key: "more", title: `and ${byPrefix.size - 8} more`, pairs: [] });
    }
    if (status.role === "mapping") nodes.push({ key: "xtr", title: "Resolver clients", pairs: [["lookups", `${short(rate("map_requests_received"))}/s`], ["answered", `${short(rate("map_replies_sent"))}/s`], ["negative", `${short(rate("negative_map_replies_sent"))}/s`]] });
    sync($("native"), nodes, node => node.key, () => el("div", { class: "node" }), (node, one) => facts(node, one.title, one.pairs));
  }
  function drawRlocs() {
    const all = view.rlocs?.shown ?? [];
    const carried = new Map(since0("rlocs").map(one => [one.rloc, one.octets]));
    const total = [...carried.values()].reduce((sum, one) => sum + one, 0);
    const rows = [];
    for (const [family, name] of [[false, "IPv4"], [true, "IPv6"]]) {
      const group = all.filter(one => isV6(one.address) === family);
      if (!group.length) continue;
      rows.push({ key: name, heading: `${name} RLOCs` });
      rows.push(...group.slice(0, MOST_ROWS).map(one => ({ key: one.address, rloc: one, share: carried.get(one.address) ?? 0, total })));
      if (group.length > MOST_ROWS) rows.push({ key: `${name}+`, heading: `and ${group.length - MOST_ROWS} more ${name} RLOCs shown by: isthmus show locators` });
    }
    const left = (view.rlocs?.total ?? 0) - all.length;
    if (left > 0) rows.push({ key: "left", heading: `and ${whole(left)} more RLOCs that need no attention` });
    if (!rows.length) rows.push({ key: "none", heading: "No remote RLOC yet: the map-cache is empty." });
    say($("topology-sum"), view.rlocs?.total ? many(view.rlocs.total, "remote RLOC", "remote RLOCs") : "");
    sync($("remote"), rows, row => row.key, row => (row.rloc ? makeRloc(row) : el("h3")), (node, row) => (row.rloc ? renewRloc(node, row) : say(node, row.heading)));
  }
  // What RLOCs got in the last few seconds; if nothing, since the start.
  function since0(name) {
    const now = view.migration?.report?.[name] ?? [];
    const then = samples.find(sample => sample.at >= view.unix_milliseconds - 6000 && sample.migration)?.migration?.[name] ?? [];
    const before = new Map(then.map(one => [one.rloc, one.octets]));
    const grown = now.map(one => ({ ...one, octets: Math.max(0, one.octets - (before.get(one.rloc) ?? 0)) }));
    return grown.some(one => one.octets > 0) ? grown : [];
  }
  function makeRloc(row) {
    return el("button", { type: "button", class: "rloc", onclick: () => search(`rloc ${row.rloc.address}`) },
      el("span", { class: "where" }, el("span"), el("span", { class: "badge", text: "PETR", hidden: true })), el("span", { class: "state" }), el("span", { class: "rtt" }),
      el("span", { class: "why" }, el("span", { class: "bar", "aria-hidden": "true" }), el("span")));
  }
  function renewRloc(node, { rloc, share, total }) {
    const [where, state, time, why] = node.children;
    put(state, "class", `state ${mood(rloc.state)}`);
    say(state, rloc.state);
    say(where.firstChild, rloc.address);
    where.lastChild.hidden = !rloc.petr;
    say(time, rtt(rloc.rtt_micros));
    fillBar(why.firstChild, [{ mark: isV6(rloc.address) ? "v6" : "v4", value: share }, { mark: "rest", value: total - share }], total);
    const parts = [total ? `${percent(share, total)} of what is sent` : "nothing sent now", rloc.petr ? "proxy" : many(rloc.mappings, "EID-prefix", "EID-prefixes")];
    if (rloc.probe_loss_percent) parts.push(`${rloc.probe_loss_percent} % of probes lost`);
    say(why.lastChild, (rloc.unusable ? [rloc.unusable, `for ${span(rloc.since_seconds)}`] : parts).join(" · "));
    put(node, "title", `${rloc.address}: ${rloc.state} for ${span(rloc.since_seconds)}, ${rtt(rloc.rtt_micros)}, ${rloc.probes_answered} of ${rloc.probes_sent} probes answered, MTU ${rloc.mtu} ${rloc.path_mtu}. Click for its map-cache entries.`);
    node.dataset.mood = share > 0 && mood(rloc.state) === "idle" ? "ok" : mood(rloc.state);
    node.dataset.weight = total ? (1.2 + 5 * share / total).toFixed(1) : "1.2";
  }
  function drawRegistrants() {
    const sites = view.sites ?? [];
    const rows = sites.slice(0, 200).map(site => ({ key: site.site, site }));
    const left = sites.length - rows.length + (view.sites_left_out ?? 0);
    if (left > 0) rows.push({ key: " left", heading: `and ${whole(left)} more sites` });
    if (!rows.length) rows.push({ key: " none", heading: "No site is configured." });
    say($("topology-sum"), many(sites.length + (view.sites_left_out ?? 0), "site", "sites"));
    sync($("remote"), rows, row => row.key, row => (row.site ? makeSite(row) : el("h3")), (node, row) => (row.site ? renewSite(node, row.site) : say(node, row.heading)));
  }
  function makeSite(row) {
    return el("button", { type: "button", class: "rloc", onclick: () => search(row.site.site) },
      el("span", { class: "where", text: row.site.site }), el("span", { class: "state" }), el("span", { class: "rtt" }), el("span", { class: "why" }, el("span")));
  }
  function renewSite(node, site) {
    const [, state, much, why] = node.children;
    const silent = !site.registrations;
    put(state, "class", `state ${silent ? "bad" : "ok"}`);
    say(state, silent ? "silent" : "registered");
    say(much, many(site.registrations ?? 0, "prefix", "prefixes"));
    const refusal = (view.refusals ?? []).find(one => one.site === site.site && one.age_seconds < 600);
    const last = site.last_register_age_seconds === undefined ? "never registered" : `last Map-Register ${span(site.last_register_age_seconds)} ago`;
    say(why.lastChild, [last, site.records_refused ? `${whole(site.records_refused)} refused` : "", refusal ? `${refusal.reason} from ${refusal.source}: ${refusal.help}` : ""].filter(Boolean).join(" · "));
    node.dataset.mood = silent ? "bad" : refusal ? "warn" : "ok";
    node.dataset.weight = "1.6";
  }
  // Lines from us to everything else, where there is room for them.
  function wire() {
    const host = $("topology");
    const lines = host.querySelector(".wires");
    if (getComputedStyle(lines).display === "none") return;
    const frame = host.getBoundingClientRect();
    const self = $("self").getBoundingClientRect();
    const remote = $("remote").getBoundingClientRect();
    const links = [];
    for (const node of $("remote").querySelectorAll(".rloc")) {
      const box = node.getBoundingClientRect();
      const y = box.top + box.height / 2;
      if (y > remote.top && y < remote.bottom) links.push({ key: `r${node.dataset.key}`, from: [self.right, self.top + self.height / 2], to: [box.left, y], mark: node.dataset.mood, width: node.dataset.weight });
    }
    for (const node of $("native").children) {
      const box = node.getBoundingClientRect();
      links.push({ key: `n${node.dataset.key}`, from: [box.right, box.top + box.height / 2], to: [self.left, self.top + self.height / 2], mark: "", width: 1.2 });
    }
    sync(lines, links, link => link.key, () => svg("path"), (node, { from, to, mark, width }) => {
      const [x1, y1, x2, y2] = [from[0] - frame.left, from[1] - frame.top, to[0] - frame.left, to[1] - frame.top];
      const half = (x2 - x1) / 2;
      put(node, "d", `M${x1.toFixed(1)} ${y1.toFixed(1)}C${(x1 + half).toFixed(1)} ${y1.toFixed(1)} ${(x2 - half).toFixed(1)} ${y2.toFixed(1)} ${x2.toFixed(1)} ${y2.toFixed(1)}`);
      put(node, "class", mark);
      put(node, "stroke-width", width);
    });
  }
  new ResizeObserver(() => view && wire()).observe($("topology"));
  $("remote").addEventListener("scroll", () => view && wire(), { passive: true });

  // ---- Drops and events

  function dropRates() {
    const now = samples[samples.length - 1];
    const then = ago(1900);
    const seconds = (now.at - then.at) / 1000;
    const found = new Map();
    for (const [reason, number] of Object.entries(now.drops)) found.set(reason, seconds > 0 ? Math.max(0, number - (then.drops[reason] ?? 0)) / seconds : 0);
    return found;
  }
  function drawDrops() {
    const now = dropRates();
    const sorted = [...view.drops].sort((a, b) => (now.get(b.reason) ?? 0) - (now.get(a.reason) ?? 0) || b.count - a.count);
    $("no-drops").hidden = sorted.length > 0;
    say($("drops-sum"), sorted.length ? `${whole(sorted.reduce((sum, drop) => sum + drop.count, 0))} for ${many(sorted.length, "reason", "reasons")}` : "");
    sync($("drops"), sorted, drop => drop.reason, drop => el("li", {}, el("div", { class: "line" }, el("code", { text: drop.reason }), el("span", { class: "now" }), el("span", { class: "quiet" })), el("p", { class: "help" })), (node, drop) => {
      const speed = now.get(drop.reason) ?? 0;
      put(node, "class", speed > 0 ? "moving" : "");
      say(node.firstChild.children[1], speed > 0 ? `${short(speed)}/s` : "");
      say(node.firstChild.children[2], `${whole(drop.count)} in all`);
      say(node.lastChild, drop.help);
    });
  }
  const SEVERITY = { info: "idle", warning: "warn", error: "bad" };
  function drawEvents() {
    const events = [...(view.events ?? [])].reverse();
    $("no-events").hidden = events.length > 0;
    sync($("events"), events, event => `${event.unix_milliseconds} ${event.number}`, event => el("li", {},
      el("time", { datetime: new Date(event.unix_milliseconds).toISOString(), title: new Date(event.unix_milliseconds).toString(), text: clock(event.unix_milliseconds) }),
      el("span", { class: `state ${SEVERITY[event.severity] ?? "idle"}`, text: event.kind }), el("span", { class: "mono", text: event.subject }),
      el("span", { class: "cause", text: event.left_out ? `${event.cause} (and ${event.left_out} like it before)` : event.cause })), () => {});
  }

  // ---- Map-cache, or registrations: a long list of which only what can be seen is on the page

  const ROW = 34;
  const BLOCK = 500;
  const EAGER = 10000;
  const MOST_LOADED = 50000;
  const columns = {
    router: [
      ["EID-prefix", "minmax(11rem,1.6fr)", entry => inInstance(entry.instance_id, entry.prefix), "mono"],
      ["Forwarding", "minmax(9rem,1.1fr)", entry => entry.forwarding, null, entry => (entry.forwarding.startsWith("drop") ? "bad" : entry.forwarding === "resolve" ? "warn" : entry.forwarding.startsWith("encapsulate") ? "ok" : "idle")],
      ["RLOCs", "minmax(9rem,1.8fr)", entry => entry.locators.map(one => `${one.address}${one.unusable ? " ✕" : ""}`).join(", "), "mono extra"],
      ["Mapping", "minmax(6rem,.8fr)", entry => `${entry.state}${entry.secured ? ", secured" : ""}`, "extra"],
      ["Expires", "5.5rem", entry => span(entry.expires_seconds), "n extra"],
      ["Packets", "5.5rem", entry => short(entry.packets), "n"],
      ["Octets", "5rem", entry => short(entry.octets), "n extra"],
    ],
    mapping: [
      ["EID-prefix", "minmax(11rem,1.5fr)", entry => nameOf(entry), "mono"],
      ["Site", "minmax(6rem,1fr)", entry => entry.site],
      ["RLOCs", "minmax(9rem,1.8fr)", entry => entry.locators.map(one => `${one.rloc}${one.reachable ? "" : " ✕"}`).join(", "), "mono extra"],
      ["From", "minmax(8rem,1fr)", entry => entry.source, "mono extra"],
      ["Expires", "5.5rem", entry => span(entry.expires_seconds), "n"],
    ],
  };
  const nameOf = entry => (entry.prefix && typeof entry.prefix === "object" ? inInstance(entry.prefix.instance_id, entry.prefix.prefix) : entry.name ?? inInstance(entry.instance_id, entry.prefix));
  const rowKey = entry => `${nameOf(entry)} ${entry.source ?? ""} ${entry.xtr_id ?? ""}`;

  const list = (() => {
    const host = $("list"), body = $("list-body"), head = $("list-head");
    // Blocks of entries, each with the place where it begins, and where the next one does.
    let blocks = [];
    let next = "";
    let rows = [];
    let wanted = "";
    let turn = 0;
    let loading = false;
    let selected = null;
    let trouble = null;
    let renewed = 0;
    let otherwise = 0;
    let ready = false;
    const pool = [];
    const spec = () => (isRouter() ? columns.router : columns.mapping);

    const there = () => (isRouter() ? view.counters.map_cache_entries : view.counters.registrations + (view.counters.names_registered ?? 0)) ?? 0;

    function flatten() { rows = blocks.flatMap(block => block.entries); }
    async function ask(after) {
      const path = isRouter() ? "api/map-cache" : "api/registrations";
      return getJson(`${path}?most=${BLOCK}&q=${encodeURIComponent(wanted)}&after=${encodeURIComponent(after)}`);
    }
    // The next block, while more are wanted.
    async function more() {
      if (loading || next === null || !view) return;
      loading = true;
      const mine = turn;
      try {
        const answer = await ask(next);
        if (mine === turn) {
          blocks.push({ after: next, next: answer.next, entries: answer.entries });
          next = answer.next;
          trouble = null;
          for (const entry of answer.entries) rows.push(entry);
          show();
        }
      } catch (error) { if (mine === turn) { trouble = error.message; next = error.refused ? null : next; } }
      loading = false;
      total();
      if (mine !== turn) return void more();
      if (!trouble && next !== null && rows.length < MOST_LOADED && (rows.length < EAGER || nearEnd())) setTimeout(more, 30);
    }
    const nearEnd = () => host.scrollTop + host.clientHeight * 3 > rows.length * ROW;
    // What can be seen is asked for again every few seconds.
    async function renew() {
      if (!view || loading || !blocks.length || document.hidden) return;
      const first = Math.floor(host.scrollTop / ROW);
      let at = 0, before = 0;
      while (at < blocks.length - 1 && before + blocks[at].entries.length <= first) { before += blocks[at].entries.length; at += 1; }
      const block = blocks[at];
      const mine = turn;
      loading = true;
      try {
        const answer = await ask(block.after);
        if (mine === turn) {
          if (answer.next !== block.next) { blocks.length = at + 1; next = answer.next; }
          blocks[at] = { after: block.after, next: answer.next, entries: answer.entries };
          trouble = null;
          flatten();
          show();
          renewDetails();
        }
      } catch (error) { if (mine === turn) trouble = error.message; }
      loading = false;
      if (next !== null) { if (rows.length < EAGER || nearEnd()) more(); return; }
      // Entries came or went where nobody looks: after a while, all of them are asked for.
      const isOther = wanted ? blocks.length > 1 : there() !== rows.length;
      otherwise = isOther ? otherwise + 1 : 0;
      if (otherwise > (wanted ? 4 : 1)) { otherwise = 0; await refresh(); }
    }
    // All entries anew, behind what is shown meanwhile.
    async function refresh() {
      const mine = turn;
      const fresh = [];
      let after = "";
      let length = 0;
      loading = true;
      try {
        while (after !== null && length < EAGER && mine === turn) {
          const answer = await ask(after);
          fresh.push({ after, next: answer.next, entries: answer.entries });
          length += answer.entries.length;
          after = answer.next;
          await new Promise(resume => setTimeout(resume, 30));
        }
        if (mine === turn) {
          blocks = fresh;
          next = after;
          flatten();
          show();
          renewDetails();
        }
      } catch (error) { if (mine === turn) trouble = error.message; }
      loading = false;
      if (mine !== turn) more();
    }
    function begin(text) {
      turn += 1;
      wanted = text;
      blocks = [];
      rows = [];
      next = "";
      trouble = null;
      host.scrollTop = 0;
      more();
    }
    function total() {
      if (!view) return;
      if (!ready) {
        ready = true;
        heading();
        begin(wanted);
      }
      if (Date.now() - renewed > 2500) { renewed = Date.now(); renew(); }
      const found = wanted ? `${whole(rows.length)} found of ${whole(there())}` : rows.length < there() ? `${whole(rows.length)} of ${whole(there())} loaded` : whole(rows.length);
      const open = next !== null && rows.length >= EAGER ? ", scroll for more" : next !== null && loading ? " …" : "";
      say($("list-sum"), trouble ? `cannot be looked up: ${trouble}` : `${found}${open}`);
    }
    function heading() {
      host.style.setProperty("--columns", "");
      layout();
      head.replaceChildren(...spec().map(([name, , , mark]) => el("span", { role: "columnheader", class: mark?.replace("mono", ""), text: name })));
    }
    // On a narrow screen some columns are left out.
    function layout() {
      if (!view) return;
      const narrow = matchMedia("(max-width: 640px)").matches;
      host.style.setProperty("--columns", spec().filter(column => !narrow || !(column[3] ?? "").includes("extra")).map(column => (narrow ? column[1].replace(/minmax\([^,]+/, "minmax(0") : column[1])).join(" "));
    }
    function show() {
      body.style.height = `${rows.length * ROW}px`;
      host.style.height = `${Math.min(12, Math.max(3, rows.length)) * ROW + ROW + 2}px`;
      host.setAttribute("aria-rowcount", rows.length + 1);
      const first = Math.max(0, Math.floor(host.scrollTop / ROW) - 4);
      const last = Math.min(rows.length, first + Math.ceil(host.clientHeight / ROW) + 9);
      while (pool.length < last - first) {
        const node = el("div", { class: "row entry", role: "row" }, ...spec().map(([, , , mark]) => el("span", { role: "cell", class: mark })));
        node.addEventListener("click", () => choose(Number(node.dataset.at)));
        pool.push(node);
        body.append(node);
      }
      pool.forEach((node, n) => {
        // The row of an entry stays the same element while it is scrolled over.
        const at = first + ((n - first) % pool.length + pool.length) % pool.length;
        if (at >= last) { node.hidden = true; return; }
        node.hidden = false;
        node.dataset.at = at;
        const entry = rows[at];
        node.style.transform = `translateY(${at * ROW}px)`;
        put(node, "aria-rowindex", at + 2);
        node.classList.toggle("chosen", rowKey(entry) === selected);
        spec().forEach(([, , text, mark, state], column) => {
          const cell = node.children[column];
          const value = text(entry);
          if (cell.textContent !== value) { cell.textContent = value; cell.title = value; }
          if (state) put(cell, "class", `state ${state(entry)}`);
        });
      });
    }
    // What is chosen may have changed.
    function renewDetails() {
      const entry = selected && rows.find(one => rowKey(one) === selected);
      if (entry) details(entry);
    }
    function choose(at) {
      const entry = rows[at];
      if (!entry) return;
      selected = rowKey(entry) === selected ? null : rowKey(entry);
      if (!selected) $("details").replaceChildren();
      const top = at * ROW;
      if (top < host.scrollTop) host.scrollTop = top;
      else if (top + 2 * ROW + 2 > host.scrollTop + host.clientHeight) host.scrollTop = top + 2 * ROW + 2 - host.clientHeight;
      show();
      renewDetails();
    }
    function details(entry) {
      const router = isRouter();
      const said = router
        ? [`${entry.state} via ${entry.via}`, `forwarding: ${entry.forwarding}`, `known for ${span(entry.uptime_seconds)}`, `expires in ${span(entry.expires_seconds)}`, many(entry.packets, "packet", "packets"), many(entry.octets, "octet", "octets"), entry.secured ? "secured by LISP-SEC" : "", entry.map_version ? `map-version ${entry.map_version}` : ""]
        : [`site ${entry.site}`, `from ${entry.source}`, `registered for ${span(entry.uptime_seconds)}`, `expires in ${span(entry.expires_seconds)}`, `TTL ${entry.ttl_minutes} min`, entry.proxy_reply ? "answered by the Map-Server" : "answered by the ETR", entry.merge ? "merged" : "", entry.xtr_id ? `xTR-ID ${entry.xtr_id}` : ""];
      const headings = router ? ["RLOC", "State", "#Priority/weight", "#RTT", "#Packets", "#Octets", "Why it carries nothing"] : ["RLOC", "State", "#Priority/weight"];
      const drop = router && entry.forwarding.startsWith("drop:") ? view.drops.find(one => one.reason === entry.forwarding.slice(5)) : null;
      const line = one => (router
        ? [[one.address + (one.petr ? " (PETR)" : ""), "mono"], [one.state, `state ${mood(one.state)}`], [`${one.priority}/${one.weight}`, "n"], [rtt(one.rtt_micros), "n"], [whole(one.packets), "n"], [whole(one.octets), "n"], [one.unusable ?? "", "quiet"]]
        : [[one.rloc, "mono"], [one.reachable ? "reachable" : "not reachable", `state ${one.reachable ? "ok" : "bad"}`], [`${one.priority}/${one.weight}`, "n"]]);
      const table = el("div", {});
      tableOf(table, headings).append(...entry.locators.map(one => el("tr", {}, ...line(one).map(([text, mark]) => el("td", { class: mark.startsWith("state") ? null : mark }, mark.startsWith("state") ? el("span", { class: mark, text }) : text)))));
      $("details").replaceChildren(el("h3", { class: "mono", text: nameOf(entry) }), el("p", { class: "facts" }, ...said.filter(Boolean).map(text => el("span", { text }))),
        drop ? el("p", { text: drop.help }) : null ?? "", entry.locators.length ? el("div", { class: "scroll" }, table) : el("p", { class: "quiet", text: "No locator." }));
    }
    let waiting = false;
    host.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; show(); if (nearEnd()) more(); });
    }, { passive: true });
    host.addEventListener("keydown", event => {
      const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || !rows.length) { if (event.key === "Escape") { selected = null; $("details").replaceChildren(); show(); } return; }
      event.preventDefault();
      const now = selected ? rows.findIndex(entry => rowKey(entry) === selected) : -1;
      const at = Math.min(rows.length - 1, Math.max(0, (now < 0 && step > 0 ? -1 : now) + step));
      if (at !== now) choose(at);
    });
    new ResizeObserver(() => { layout(); show(); }).observe(host);
    let typing = 0;
    $("q").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => begin($("q").value.trim()), 250); });
    $("search").addEventListener("submit", event => { event.preventDefault(); begin($("q").value.trim()); });
    return { total, begin, restart() { ready = false; } };
  })();
  function search(text) {
    $("q").value = text;
    list.begin(text);
    $("s-list").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
    $("list").focus({ preventScroll: true });
  }

  async function getJson(path) {
    const answer = await fetch(path, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(20000) });
    const value = await answer.json();
    if (!answer.ok) {
      const error = new Error(value.error ?? answer.statusText);
      error.refused = answer.status === 400;
      throw error;
    }
    return value;
  }

  // ---- The stream, which is opened anew whenever it breaks

  let source = null;
  let heard = 0;
  let retry = 0;
  function connect() {
    clearTimeout(retry);
    source?.close();
    if (document.hidden) return;
    heard = Date.now();
    source = new EventSource("api/live");
    source.onmessage = event => {
      heard = Date.now();
      receive(JSON.parse(event.data));
      beat();
    };
    source.onerror = () => again();
  }
  function again() {
    source?.close();
    source = null;
    clearTimeout(retry);
    retry = setTimeout(connect, 700);
    beat();
  }
  function beat() {
    if (document.hidden) return;
    const silent = Date.now() - heard;
    const live = source !== null && view !== null && silent < 3500;
    const link = $("link");
    put(link, "class", `link ${live ? "live" : "waiting"}`);
    document.body.classList.toggle("stale", !live && view !== null);
    const news = flash && view && flash.until > view.unix_milliseconds ? `, ${flash.text}` : "";
    say(link, live ? `live${news}` : view ? "reconnecting: the daemon does not answer" : "connecting");
    if (source && silent > 6000) again();
  }
  setInterval(beat, 1000);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); source = null; clearTimeout(retry); } else connect();
  });
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  say($("zone"), `Times are those of this browser (${zone}).`);
  connect();
})();
