"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  document.documentElement.classList.add("script");

  // Figures: on a narrow screen, labels at line ends make way for the lines.
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    toImageButtonOptions: { format: "svg" },
  };
  const PRINT_WIDTH = 690;
  const draw = (chart) => {
    const { data, layout } = read(chart.id + "-data");
    const narrow = chart.clientWidth < 560;
    if (narrow) {
      layout.annotations = (layout.annotations || []).filter((a) => a.name !== "end-label");
      layout.margin = { ...layout.margin, r: 12 };
      layout.dragmode = false;
      if (layout.showlegend !== false && data.length > 3) layout.height = (layout.height || 400) + 80;
      chart.style.height = layout.height + "px";
    }
    Plotly.newPlot(chart, data, layout, { ...config, displayModeBar: narrow ? false : "hover" });
  };
  all(".chart").forEach(draw);
  const widths = (width) =>
    all(".chart").forEach((chart) => {
      const inGrid = chart.closest(".grid");
      const wide = width && (inGrid ? width / 3 - 14 : width);
      Plotly.relayout(chart, wide ? { autosize: false, width: wide } : { autosize: true, width: null });
    });
  const folded = all("details:not([open])");
  const unfold = (open) => folded.forEach((one) => (one.open = open));
  window.addEventListener("beforeprint", () => (unfold(true), widths(PRINT_WIDTH)));
  window.addEventListener("afterprint", () => (unfold(false), widths(null)));

  // Tabs: the tables of claims, one metric at a time.
  const tabbed = (box) => {
    const panels = all(".panel", box);
    if (panels.length < 2) return;
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "Metric");
    const tabs = panels.map((panel) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.textContent = panel.dataset.label;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panel.id);
      tab.id = panel.id + "-tab";
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      return tab;
    });
    const choose = (chosen) =>
      tabs.forEach((tab, i) => {
        tab.setAttribute("aria-selected", String(i === chosen));
        tab.tabIndex = i === chosen ? 0 : -1;
        panels[i].hidden = i !== chosen;
      });
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => choose(i));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = (i + step + tabs.length) % tabs.length;
        choose(next);
        tabs[next].focus();
      });
    });
    list.append(...tabs);
    box.classList.add("has-tabs");
    box.prepend(list);
    choose(0);
  };
  all(".tabbed").forEach(tabbed);

  // Tables: a click on a heading sorts, another one turns the order round.
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent;
    const number = Number(text);
    return cell.classList.contains("num") ? (Number.isNaN(number) ? Infinity : number) : text;
  };
  const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  const sortable = (table) =>
    all("th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => order(value(a, column), value(b, column)) * (down ? -1 : 1));
        table.tBodies[0].append(...rows);
      });
    });
  all("table.sortable").forEach(sortable);

  // Completions: everything a model wrote goes in as text, never as HTML.
  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const texts = byId("completions-data") && read("completions-data");
  const one = (item) => {
    const box = element("div", "", "completion");
    const marks = element("p", "", "marks");
    item.badges.forEach(([name, text, kind]) => marks.append(element("span", `${name}: ${text}`, `badge ${kind}`), " "));
    marks.append(element("small", item.length));
    box.append(marks);
    item.parts.forEach(([kind, text]) => box.append(element(kind === "code" ? "pre" : "p", text, "model-text")));
    if (!item.parts.length) box.append(element("p", "(nothing)", "note"));
    return box;
  };
  const fill = (id, items) => {
    const missing = element("p", "No completion was written for this choice.", "note");
    byId(id).replaceChildren(...(items && items.length ? items.map(one) : [missing]));
  };
  const show = () => {
    const [p, d, a] = ["prompt", "direction", "alpha"].map((name) => byId("choose-" + name).value);
    byId("prompt-text").textContent = texts.prompts[p].text;
    byId("steered-title").textContent = `${texts.directions[d].label}, ${texts.alphas[a].label}`;
    fill("pane-unsteered", texts.unsteered[p]);
    fill("pane-steered", texts.texts[`${p}|${d}|${a}`]);
  };
  if (texts) {
    ["prompt", "direction", "alpha"].forEach((name) => byId("choose-" + name).addEventListener("change", show));
    show();
  }
})();
