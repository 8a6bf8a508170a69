"use strict";
// What the page does: draws its charts when they come into view, and filters, sorts and plays.
(() => {
  const { figures, templates } = JSON.parse(document.getElementById("report-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 520px)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const LABEL_PIXELS = 11;
  const MOST_COUNTED = 12;
  let printing = false;

  // Charts ------------------------------------------------------------------------------------------------------------

  const shorten = (name, most) => {
    // Cut where a character ends: names are escaped, and "&amp;" is one character.
    const characters = name.match(/&[a-z]+;|[^]/gu) ?? [];
    return characters.length <= most ? name : characters.slice(0, most - 3).join("").trimEnd() + "...";
  };

  // Names beside an axis where they fit, for the part of it that is visible.
  function ticks(names, range, pixels, most) {
    const [first, last] = [Math.min(...range), Math.max(...range)];
    const places = names.map((_, place) => place).filter((place) => place > first && place < last);
    const each = pixels / Math.max(places.length, 1);
    if (each < LABEL_PIXELS) return { showticklabels: false };
    const ticktext = places.map((place) => shorten(names[place], most));
    return { showticklabels: true, tickvals: places, ticktext, tickfont: { size: Math.min(12, Math.max(9, each - 2)) } };
  }

  function axisTicks(plot, layout, names) {
    const changes = {};
    const width = plot.clientWidth || 300;
    for (const [axis, ofAxis] of Object.entries(names)) {
      const room = axis === "x" ? width * 0.8 : layout.height * 0.75;
      const most = axis === "y" ? (width < 480 ? 18 : width < 800 ? 40 : 64) : 22;
      for (const [key, value] of Object.entries(ticks(ofAxis, layout[axis + "axis"].range, room, most))) {
        changes[`${axis}axis.${key}`] = value;
      }
      if (axis === "x") {
        const beside = ofAxis.reduce((sum, name) => sum + 7 * Math.min(name.length, most) + 12, 0);
        changes["xaxis.tickangle"] = beside > room ? -45 : 0;
      }
    }
    return changes;
  }

  const put = (layout, changes) => {
    for (const [path, value] of Object.entries(changes)) {
      const [axis, key] = path.split(".");
      layout[axis][key] = value;
    }
  };

  const clips = (count) => (count === 1 ? "1 clip" : `${count.toLocaleString("en")} clips`);

  // The whole matrix out of its cells, for the classes that are shown.
  function matrix(figure, which, width) {
    const order = figure.orders[which];
    const size = order.length;
    const place = new Map(order.map((index, at) => [index, at]));
    const z = order.map(() => new Array(size).fill(null));
    const told = order.map(() => new Array(size).fill(null));
    const counts = order.map(() => new Array(size).fill(""));
    for (const [row, column, count] of figure.cells) {
      if (!place.has(row) || !place.has(column)) continue;
      const [at, by] = [place.get(row), place.get(column)];
      const share = count / figure.support[row];
      z[at][by] = share;
      counts[at][by] = String(count);
      told[at][by] =
        `true: <b>${figure.names[row]}</b><br>predicted: <b>${figure.names[column]}</b><br>` +
        `${clips(count)}, ${(100 * share).toFixed(1)} % of the true class`;
    }
    const gap = size <= 60 ? 1 : 0;
    const trace = {
      type: "heatmap", z, customdata: told, hovertemplate: "%{customdata}<extra></extra>", hoverongaps: false,
      coloraxis: "coloraxis", xgap: gap, ygap: gap,
    };
    if (size <= MOST_COUNTED) Object.assign(trace, { text: counts, texttemplate: "%{text}" });
    const layout = structuredClone(figure.layout);
    layout.height = Math.round(Math.min(Math.max(width, 340) * (width < 480 ? 1.15 : 0.95), 740));
    const common = { showgrid: false, zeroline: false, ticks: "", showline: true, mirror: true };
    Object.assign(layout.xaxis, common, { title: { text: "predicted", standoff: 10 }, range: [-0.5, size - 0.5] });
    Object.assign(layout.yaxis, common, { title: { text: "true", standoff: 10 }, range: [size - 0.5, -0.5] });
    layout.coloraxis = {
      cmin: 0, cmax: 1, showscale: width > 420,
      colorbar: { tickformat: ".0%", thickness: 10, outlinewidth: 0, len: 1, tickfont: { size: 11 } },
    };
    const names = order.map((index) => figure.names[index]);
    layout.meta = { names: { x: names, y: names } };
    return { data: [trace], layout };
  }

  function draw(plot) {
    const figure = figures[plot.dataset.chart];
    const width = plot.clientWidth || 300;
    const built =
      figure.kind === "matrix"
        ? matrix(figure, Number(plot.dataset.order ?? 0), width)
        : { data: figure.data, layout: structuredClone(figure.layout) };
    const { data, layout } = built;
    layout.template = templates[dark.matches && !printing ? "dark" : "light"];
    // A drag on a touch screen is meant to scroll the page.
    layout.dragmode = touch ? false : "zoom";
    const names = layout.meta?.names;
    if (names) put(layout, axisTicks(plot, layout, names));
    // One entry below the other where they would not fit beside each other.
    const entries = data.filter((trace) => trace.showlegend !== false && trace.name).map((trace) => trace.name.length);
    if (layout.showlegend && entries.reduce((sum, length) => sum + 7 * length + 50, 0) > width) {
      layout.legend.orientation = "v";
      layout.margin.t += 6;
      layout.height += 19 * (entries.length - 1);
    }
    const zooms = figure.kind === "matrix" ? ["pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"] : ["zoom2d", "resetScale2d"];
    const config = {
      responsive: true,
      displaylogo: false,
      displayModeBar: figure.kind === "matrix" && touch ? true : touch ? false : "hover",
      modeBarButtons: [["toImage", ...zooms]],
    };
    plot.style.minHeight = "";
    const subtitle = plot.parentElement.querySelector(".subtitle");
    if (subtitle) {
      subtitle.textContent = figure.title;
      subtitle.hidden = figure.title === plot.dataset.title || figure.kind === "matrix";
    }
    Plotly.react(plot, data, layout, config);
    if (names && !plot.dataset.listens) {
      plot.dataset.listens = "yes";
      plot.on("plotly_relayout", (event) => {
        if (!Object.keys(event).some((key) => /^[xy]axis\.(range|autorange)/.test(key))) return;
        const changes = axisTicks(plot, plot.layout, plot.layout.meta.names);
        Plotly.relayout(plot, changes);
      });
    }
    plot.dataset.drawn = "yes";
  }

  const plots = [...document.querySelectorAll(".plot")];
  const redraw = () => plots.filter((plot) => plot.dataset.drawn).forEach(draw);
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "500px" },
  );
  plots.forEach((plot) => near.observe(plot));
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; plots.forEach(draw); });
  addEventListener("afterprint", () => { printing = false; redraw(); });

  for (const figure of document.querySelectorAll("figure:has(.plot)")) {
    const plot = figure.querySelector(".plot");
    figure.querySelector(".chart-choice")?.addEventListener("change", ({ target }) => {
      plot.dataset.chart = target.value;
      draw(plot);
    });
    figure.querySelector(".order-choice")?.addEventListener("change", ({ target }) => {
      plot.dataset.order = target.value;
      draw(plot);
    });
  }

  // Tables of classes -------------------------------------------------------------------------------------------------

  for (const box of document.querySelectorAll(".class-table")) {
    const body = box.querySelector("tbody");
    const rows = [...body.rows];
    box.querySelector("input").addEventListener("input", ({ target }) => {
      const wanted = target.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    });
    const heads = [...box.querySelectorAll("thead th")];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const text = (row) => row.cells[column].textContent;
        const descending = head.ariaSort ? head.ariaSort === "ascending" : column > 0;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.ariaSort = descending ? "descending" : "ascending";
        const compare = column ? (a, b) => text(a) - text(b) : (a, b) => text(a).localeCompare(text(b));
        rows.sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
        body.append(...rows);
      });
    });
  }

  // Clips -------------------------------------------------------------------------------------------------------------

  const cards = [...document.querySelectorAll(".clip")];
  const byClass = document.getElementById("filter-class");
  const byRight = document.getElementById("filter-right");
  const filter = () => {
    let shown = 0;
    for (const card of cards) {
      const fits =
        (!byClass.value || card.dataset.labels.split(" ").includes(byClass.value)) &&
        (!byRight.value || card.dataset.right === byRight.value);
      card.hidden = !fits;
      shown += fits;
    }
    document.getElementById("filter-count").textContent = `${shown} of ${cards.length} shown`;
  };
  if (cards.length) {
    byClass.addEventListener("change", filter);
    byRight.addEventListener("change", filter);
    filter();

    let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    const visible = new Set();
    const button = document.getElementById("playback");
    const play = () => {
      button.textContent = playing ? "Pause all" : "Play all";
      for (const { firstElementChild: video } of cards) {
        if (playing && visible.has(video)) video.play().catch(() => {}); else video.pause();
      }
    };
    // Dozens of videos that play at once are too much for a phone.
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) visible[isIntersecting ? "add" : "delete"](target);
      play();
    });
    for (const { firstElementChild: video } of cards) {
      const sharpen = () => video.classList.toggle("tiny", video.videoWidth > 0 && video.videoWidth <= 128);
      if (video.readyState >= 1) sharpen(); else video.addEventListener("loadedmetadata", sharpen);
      seen.observe(video);
    }
    button.addEventListener("click", () => { playing = !playing; play(); });
  }
})();
