// What htmx is not enough for: the switch of dark and light, keys, clocks that tick, messages of a ladder, charts.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // --- dark and light: a cookie, so that the server draws the page in the right colours at once ---

  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  function setTheme(name) {
    root.dataset.theme = name;
    document.cookie = `orchestrator_theme=${name}; path=/; max-age=31536000; samesite=strict`;
    for (const button of all("[data-theme-switch]")) button.setAttribute("aria-pressed", String(name === "dark"));
    drawCharts();
  }

  // --- clocks: the server says when something began, the page counts ---

  const skew = Number(root.dataset.now || Date.now()) - Date.now();

  function length(seconds) {
    seconds = Math.max(0, Math.floor(seconds));
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
  }

  function tick(within = document) {
    const now = Date.now() + skew;
    for (const clock of all("[data-since]", within)) {
      const text = length((now - Number(clock.dataset.since)) / 1000);
      if (clock.textContent !== text) clock.textContent = text;
    }
  }

  // --- keys: `/` goes to the search, arrows go through lists, Escape leaves the search ---

  const inField = (element) => element.matches?.("input, select, textarea, [contenteditable]");

  function move(from, step) {
    const list = from.closest("[data-list]");
    const rows = list ? all("[data-row]", list) : [];
    const to = step === "first" ? 0 : step === "last" ? rows.length - 1 : rows.indexOf(from) + step;
    rows[Math.min(Math.max(to, 0), rows.length - 1)]?.focus();
  }

  const STEPS = { ArrowDown: 1, ArrowUp: -1, Home: "first", End: "last" };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.querySelector("[data-search]");
    if (event.key === "/" && search && !inField(event.target)) {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "Escape" && event.target === search) {
      search.blur();
    } else if (event.key === "ArrowDown" && event.target === search) {
      const first = document.querySelector("[data-list] [data-row]");
      if (first) { event.preventDefault(); first.focus(); }
    } else if (event.target.matches?.("[data-row]") && event.key in STEPS) {
      event.preventDefault();
      move(event.target, STEPS[event.key]);
    } else if ((event.key === "Enter" || event.key === " ") && messageOf(event.target)) {
      event.preventDefault();
      openMessage(messageOf(event.target));
    }
  });

  // --- a call: a click on a message of the ladder opens it ---

  const messageOf = (element) => element.closest?.("[data-ladder] [data-message]");

  function openMessage(arrow) {
    const ladder = arrow.closest("[data-ladder]");
    for (const other of all("[data-message][aria-current]", ladder)) other.removeAttribute("aria-current");
    arrow.setAttribute("aria-current", "true");
    ladder.dataset.open = arrow.dataset.message;
    const path = `${ladder.dataset.ladder}/${encodeURIComponent(arrow.dataset.message)}`;
    htmx.ajax("GET", path, { target: "#message", swap: "innerHTML" });
  }

  document.addEventListener("click", (event) => {
    const arrow = messageOf(event.target);
    if (arrow) return openMessage(arrow);
    const button = event.target.closest?.("button");
    if (!button) return;
    if (button.matches("[data-theme-switch]")) setTheme(isDark() ? "light" : "dark");
    if (button.matches("[data-copy]")) copy(button);
  });

  async function copy(button) {
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no secure context: the old way
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(button.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  // --- what comes over the stream: choose a thing again that was replaced, show the line that is waited at ---

  function settle(within) {
    tick(within);
    for (const ladder of all("[data-ladder]")) {
      const open = ladder.dataset.open;
      if (open) ladder.querySelector(`[data-message="${CSS.escape(open)}"]`)?.setAttribute("aria-current", "true");
    }
    for (const svg of all(".drawing > svg")) { // a drawing shrinks to its frame as long as its text can be read
      svg.style.minWidth = `${Math.round(svg.viewBox.baseVal.width * 0.75)}px`;
    }
    for (const source of all("[data-follow]")) {
      const lit = source.querySelector(".lit") ?? source.querySelector(".row.ran");
      const line = lit ? lit.dataset.line ?? lit.querySelector("title")?.textContent : "";
      if (line && source.dataset.shown !== line) {
        const [frame, box] = [source.getBoundingClientRect(), lit.getBoundingClientRect()];
        source.scrollTop += box.top - frame.top - source.clientHeight / 2;
        if (lit.matches(".node")) source.scrollLeft += (box.left + box.right) / 2 - frame.left - source.clientWidth / 2;
        source.dataset.shown = line;
      }
    }
  }

  // --- charts ---

  const charts = [];

  function drawCharts() {
    if (typeof uPlot === "undefined") return;
    for (const chart of charts) chart.plot?.destroy();
    const style = getComputedStyle(root);
    const probe = document.createElement("span");
    document.body.append(probe);
    const colour = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    // Where the pointer is, or else the newest.
    const newest = (plot, series, index) => plot.data[series][index ?? plot.data[series].length - 1];
    const value = (plot, _, series, index) => {
      const number = newest(plot, series, index);
      return number == null ? "–" : String(Math.round(number * 1000) / 1000);
    };
    const moment = (plot, _, series, index) => {
      const time = newest(plot, series, index);
      return time == null ? "–" : new Date(time * 1000).toISOString().slice(11, 19);
    };
    for (const chart of charts) {
      const lines = chart.lines.map(({ label, tone }) => ({ label, value, stroke: colour(tone), width: 2, points: { show: false } }));
      chart.plot = new uPlot({
        width: chart.element.clientWidth,
        height: 180,
        tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC"),
        series: [{ label: "UTC", value: moment }, ...lines],
        axes: [{ ...axis, values: [[60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] }, { ...axis, size: 46 }],
        scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
        legend: { show: true, live: true },
        cursor: { drag: { x: false, y: false } },
      }, chart.data, chart.element);
    }
    probe.remove();
  }

  async function startCharts() {
    const elements = all("[data-chart]");
    if (!elements.length || typeof uPlot === "undefined") return;
    const answer = await fetch("/overview/samples", { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const { columns } = await answer.json();
    for (const element of elements) {
      const lines = JSON.parse(element.dataset.chart);
      charts.push({ element, lines, data: [columns.time.slice(), ...lines.map(({ column }) => columns[column].slice())] });
    }
    drawCharts();
    addEventListener("resize", () => {
      for (const chart of charts) chart.plot?.setSize({ width: chart.element.clientWidth, height: 180 });
    });
  }

  function addSample(text) {
    const sample = JSON.parse(text);
    for (const chart of charts) {
      const [times] = chart.data;
      if (times.length && sample.time <= times[times.length - 1]) continue;
      times.push(sample.time);
      chart.lines.forEach(({ column }, index) => chart.data[index + 1].push(sample[column]));
      if (times.length > 600) for (const values of chart.data) values.shift();
      chart.plot?.setData(chart.data);
    }
  }

  document.addEventListener("sample", (event) => addSample(event.detail.data));
  document.addEventListener("gone", () => location.reload()); // signed out, or what was shown is no more
  document.addEventListener("htmx:after:swap", () => settle(document));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
  for (const button of all("[data-theme-switch]")) button.setAttribute("aria-pressed", String(isDark()));
  setInterval(tick, 1000);
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }); // on a phone
  settle(document);
  startCharts();
})();
