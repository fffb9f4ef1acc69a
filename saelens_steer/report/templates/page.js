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
  const PRINT_WIDTH = 912; // three quarters of it on paper: see style.css
  const draw = (chart, width) => {
    const { data, layout } = read(chart.id + "-data");
    const narrow = !width && chart.clientWidth < 560;
    if (narrow) {
      layout.annotations = (layout.annotations || []).filter((a) => a.name !== "end-label");
      layout.margin = { ...layout.margin, r: 12 };
      layout.dragmode = false;
      const axis = layout.xaxis || {};
      if ((axis.tickvals || []).length > 15) {
        const few = (list) => list.filter((_, i) => i % 3 === 0);
        layout.xaxis = { ...axis, tickvals: few(axis.tickvals), ticktext: few(axis.ticktext) };
      }
      if (layout.showlegend !== false && data.length > 3) layout.height = (layout.height || 400) + 80;
      chart.style.height = layout.height + "px";
    }
    if (width) Object.assign(layout, { autosize: false, width: chart.closest(".grid") ? width / 3 - 17 : width });
    Plotly.newPlot(chart, data, layout, { ...config, responsive: !width, displayModeBar: narrow ? false : "hover" });
  };
  const drawAll = (width) => all(".chart").forEach((chart) => draw(chart, width));
  drawAll();
  let folded = [];
  const unfold = (open) => {
    if (open) folded = all("details:not([open])");
    folded.forEach((one) => (one.open = open));
  };
  window.addEventListener("beforeprint", () => (unfold(true), drawAll(PRINT_WIDTH)));
  window.addEventListener("afterprint", () => (unfold(false), drawAll()));

  // A link to a feature unfolds its page.
  const reveal = () => {
    let name = location.hash.slice(1);
    try {
      name = decodeURIComponent(name);
    } catch {
      return; // no address of ours
    }
    const box = byId(name)?.closest("details");
    if (box) box.open = true;
  };
  window.addEventListener("hashchange", reveal);
  reveal();

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
    if (!item.parts.length) box.append(element("p", "(empty)", "note"));
    return box;
  };
  const fill = (id, items) => {
    const missing = element("p", "There is no completion for this combination.", "note");
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
