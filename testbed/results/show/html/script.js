"use strict";
// Figures under the pointer. Without this script, titles show them as any browser does.
(() => {
  const tip = document.getElementById("tip");
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const right = Math.min(x + 14, document.documentElement.clientWidth - tip.offsetWidth - 6);
    const below = y + 16 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 16;
    tip.style.left = Math.max(6, right) + "px";
    tip.style.top = Math.max(6, below) + "px";
  };
  let course, data, cursors;
  const prepare = () => {
    for (const title of document.querySelectorAll("svg title")) {
      title.parentNode.dataset.tip = title.textContent;
      title.remove();
    }
    course = document.getElementById("course-plots");
    data = JSON.parse(document.getElementById("course-data").textContent);
    cursors = [];
    for (const plot of course ? course.querySelectorAll(".chart:not(.lanes) svg.plot") : []) {
      const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
      cursor.setAttribute("class", "cursor");
      cursor.setAttribute("y1", 8);
      cursor.setAttribute("y2", plot.height.baseVal.value - 18);
      plot.append(cursor);
      cursors.push(cursor);
    }
  };
  prepare();
  // Of a page whose pictures are drawn again and again.
  addEventListener("drawn", prepare);
  const latency = (ms) => (ms === null ? "-" : ms.toFixed(ms < 10 ? 2 : 1) + " ms");
  const at = (plot, x) => {
    const box = plot.getBoundingClientRect();
    const share = (x - box.left) / box.width;
    const end = Number(course.dataset.end);
    const bin = data.bins[Math.floor((share * end) / data.width_s)];
    for (const cursor of cursors) {
      cursor.setAttribute("x1", share * 100 + "%");
      cursor.setAttribute("x2", share * 100 + "%");
      cursor.style.visibility = bin ? "visible" : "hidden";
    }
    if (!bin) return "";
    const [start, sent, ok, failed, unknown, p50, p99] = bin;
    return (
      `${start} to ${+(start + data.width_s).toFixed(3)} s\n` +
      `${(sent / data.width_s).toFixed(1)} requests/s, ${sent ? ((100 * ok) / sent).toFixed(2) : "-"} % ok\n` +
      `${failed} failed, ${unknown} unknown\np50 ${latency(p50)}, p99 ${latency(p99)}`
    );
  };
  const point = (event) => {
    const target = event.target instanceof Element ? event.target : document.body;
    const plot = target.closest("#course-plots .chart:not(.lanes) svg.plot");
    for (const cursor of cursors) if (!plot) cursor.style.visibility = "hidden";
    const marked = target.closest("[data-tip]");
    const text = plot ? at(plot, event.clientX) : marked ? marked.dataset.tip : "";
    if (text) show(text, event.clientX, event.clientY);
    else tip.hidden = true;
  };
  addEventListener("pointermove", point);
  addEventListener("pointerdown", point);
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  const filter = document.getElementById("filter");
  if (filter) {
    const rows = [...document.querySelectorAll("#event-table tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    filter.closest(".filter").hidden = false;
    filter.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase();
      let shown = 0;
      rows.forEach((row, index) => {
        row.hidden = !texts[index].includes(wanted);
        shown += row.hidden ? 0 : 1;
      });
      document.getElementById("filtered").textContent = wanted ? `${shown} of ${rows.length}` : "";
    });
  }
})();
