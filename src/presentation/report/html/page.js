// Draws the charts of the page from the data block. Numbers and tables stand in the page without it.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const palette = {
    light: ["#0b6eb8", "#d55e00", "#008f6b", "#b85c9b", "#9a7b00", "#3f9fcc", "#b03030", "#6a51a3", "#556b2f", "#6b6b6b"],
    dark: ["#62b0e8", "#ff9d57", "#4fc9a4", "#e59acb", "#e0c04f", "#9ad4ef", "#f08a8a", "#b7a3e3", "#b3c88a", "#b5b5b5"],
  };
  const drawn = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  const short = (value) => (value === null || value === undefined ? "–" : String(Number(Number(value).toPrecision(4))));
  const isBars = (chart) => chart.marks === "bars" || chart.marks === "stacked";
  const picked = () => new Set([...document.querySelectorAll("#points input:checked")].map((box) => box.value));
  const isPoint = new Set([...document.querySelectorAll("#points input")].map((box) => box.value));

  // The entry's name above the point's label.
  const inLines = (name) => name.replace(" ", "\n");
  const times = charts.filter((chart) => chart.over_time).flatMap((chart) => chart.series.flatMap((one) => one.points.map((point) => point[0])));
  const ends = times.reduce(([first, last], time) => [Math.min(first, time), Math.max(last, time)], [Infinity, -Infinity]);

  function axis(data, names, ink, isX) {
    const type = { linear: "value", log: "log", names: "category" }[data.scale];
    return {
      type, name: names.length ? "" : data.label, nameLocation: "middle", nameGap: isX ? 28 : 52, scale: isX,
      data: type === "category" ? names : undefined,
      nameTextStyle: { color: ink.text }, axisLine: { show: true, lineStyle: { color: ink.line } },
      splitLine: { show: type !== "category", lineStyle: { color: ink.line, opacity: 0.6 } },
      axisLabel: names.length
        ? { color: ink.text, interval: 0, rotate: names.length > 3 ? 35 : 0, width: 150, overflow: "truncate", fontSize: 10, lineHeight: 13, formatter: names.length > 3 ? undefined : inLines }
        : { color: ink.text, hideOverlap: true, formatter: short },
    };
  }

  function series(chart, data, color, ink) {
    const common = { name: data.name, color, data: data.points, animation: false };
    if (isBars(chart)) return { ...common, type: "bar", stack: chart.marks === "stacked" ? "all" : undefined };
    if (chart.marks === "dots") {
      const isLone = chart.series.every((one) => one.points.length < 2);
      const label = { show: isLone, formatter: "{a}", position: "top", fontSize: 10, color: ink.text };
      return { ...common, type: "scatter", symbolSize: isLone ? 12 : 5, label, labelLayout: { hideOverlap: true }, symbol: data.secondary ? "diamond" : "circle", itemStyle: { opacity: 0.75 } };
    }
    return {
      ...common, type: "line", step: chart.marks === "steps" ? "end" : false, showSymbol: data.points.length < 3,
      lineStyle: { width: data.secondary ? 1 : 2, type: data.secondary ? "dashed" : "solid" }, connectNulls: false,
    };
  }

  function tooltip(chart, ink) {
    const style = { backgroundColor: ink.card, borderColor: ink.line, textStyle: { color: ink.text }, confine: true };
    if (chart.marks !== "dots") return { ...style, trigger: "axis", valueFormatter: short, order: "valueDesc" };
    const lines = (item) => `${echarts.format.encodeHTML(item.seriesName)}<br>${echarts.format.encodeHTML(chart.x.label)}: ` +
      `${short(item.value[0])}<br>${echarts.format.encodeHTML(chart.y.label)}: ${short(item.value[1])}`;
    return { ...style, trigger: "item", formatter: lines };
  }

  function option(chart) {
    const isDark = dark.matches && !printing;
    const style = getComputedStyle(document.documentElement);
    const probe = document.getElementById("ink");
    const of = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
    const ink = { text: of("text"), line: of("line"), card: of("card"), font: style.fontFamily };
    const colors = palette[isDark ? "dark" : "light"];
    const groups = [...new Set(chart.series.map((one) => one.group))];
    const color = (one, index) => colors[(isBars(chart) ? index : groups.indexOf(one.group)) % colors.length];
    const zoom = { type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseMove: "shift", moveOnMouseWheel: false, preventDefaultMouseMove: false };
    const both = chart.x.scale !== "names" && !chart.over_time;
    return {
      animation: false, textStyle: { fontFamily: "system-ui, sans-serif" },
      grid: { left: 70, right: 18, top: 16, bottom: (chart.series.length > 1 ? 28 : 0) + (chart.categories.length ? (chart.categories.length > 3 ? 100 : 40) : 48) },
      legend: {
        show: chart.series.length > 1, type: "scroll", bottom: 0, textStyle: { color: ink.text }, pageTextStyle: { color: ink.text },
        pageIconColor: ink.text, selected: selection(chart),
      },
      tooltip: tooltip(chart, ink),
      xAxis: { ...axis(chart.x, chart.categories, ink, true), ...(chart.over_time ? { min: Math.floor(ends[0]), max: Math.ceil(ends[1]) } : {}) }, yAxis: axis(chart.y, [], ink, false),
      dataZoom: [{ ...zoom, xAxisIndex: 0 }, ...(both ? [{ ...zoom, yAxisIndex: 0 }] : [])].map((one) => ({ ...one, filterMode: "none" })),
      series: chart.series.map((one, index) => series(chart, one, color(one, index), ink)),
    };
  }

  function selection(chart) {
    const on = picked();
    return Object.fromEntries(chart.series.map((one) => [one.name, !isPoint.has(one.group) || on.has(one.group)]));
  }

  function zoom(instance, factor) {
    (instance.getOption().dataZoom || []).forEach((one, dataZoomIndex) => {
      const middle = (one.start + one.end) / 2, half = factor ? Math.min(50, ((one.end - one.start) / 2) * factor) : 50;
      const start = Math.max(0, Math.min(middle - half, 100 - 2 * half));
      instance.dispatchAction({ type: "dataZoom", dataZoomIndex, start: factor ? start : 0, end: factor ? start + 2 * half : 100 });
    });
  }

  function draw(chart) {
    const place = document.getElementById(chart.id);
    const instance = echarts.init(place, null, { renderer: "canvas", devicePixelRatio: Math.max(2, devicePixelRatio) });
    instance.setOption(option(chart));
    if (chart.over_time) instance.group = "over-time";
    place.closest("figure").querySelector(".tools").hidden = false;
    drawn.set(chart, instance);
  }

  function redraw() { drawn.forEach((instance, chart) => instance.setOption(option(chart), true)); }

  function drawNext(index) {
    if (index < charts.length) {
      draw(charts[index]);
      // One at a time, so that the page answers in between.
      setTimeout(() => drawNext(index + 1));
      return;
    }
    echarts.connect("over-time");
    document.documentElement.dataset.drawnAfterMs = Math.round(performance.now());
    document.documentElement.dataset.drawn = "all";
  }

  document.addEventListener("click", (event) => {
    const tool = event.target.dataset.zoom;
    if (tool !== undefined) {
      const id = event.target.closest("figure").querySelector(".chart").id;
      drawn.forEach((instance, chart) => { if (chart.id === id) zoom(instance, Number(tool)); });
    } else if (event.target.dataset.pick) {
      document.querySelectorAll("#points input").forEach((box) => { box.checked = event.target.dataset.pick === "all"; });
      pick();
    }
  });
  function pick() {
    drawn.forEach((instance, chart) => instance.setOption({ legend: { selected: selection(chart) } }));
  }
  document.getElementById("points")?.addEventListener("change", pick);
  dark.addEventListener("change", redraw);
  // On paper a chart keeps the size that it was drawn in, and page.css scales it.
  addEventListener("resize", () => { if (!printing) drawn.forEach((instance) => instance.resize()); });
  // Paper is light, and the colors are taken before the medium changes.
  function print(begins) {
    printing = begins;
    document.documentElement.style.colorScheme = begins ? "light" : "";
    redraw();
  }
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  drawNext(0);
})();
