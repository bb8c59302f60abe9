"use strict";
(() => {
  const { rows, shape, threshold, details } = JSON.parse(document.getElementById("rows").textContent);
  const [, height, width] = shape;
  const aspect = height / width;
  const STEP = 100;
  const { compare: inOrder } = new Intl.Collator(undefined, { numeric: true });
  const table = document.querySelector("table");
  const body = table.tBodies[0];
  const headings = [...table.querySelectorAll("th[data-key]")];
  const columns = headings.filter(({ dataset }) => dataset.key in rows[0].texts);
  const form = document.getElementById("filters");
  const field = (id) => document.getElementById(id);
  const opened = new Set();
  const sorted = { key: "id", sign: 1 }; // as the audit ranks them
  let limit = STEP;

  const made = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "onclick") node.addEventListener("click", value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const html = (tag, attributes = {}, ...children) => made(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    made(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const detailOf = (row) => {
    const block = document.getElementById(`image-${row.id}`);
    return block && JSON.parse(block.textContent);
  };
  const short = (number) => (number === null ? "–" : Number(number.toPrecision(3)).toString());

  // A part of the sheet in which an image and its samples lie side by side, one row per guidance scale.
  const part = (row, detail, x, y, count, side, label, ...over) => {
    return svg(
      "svg",
      {
        class: `picture${width <= 64 ? " coarse" : ""}`,
        viewBox: `${x} ${y * aspect} ${count} ${aspect}`,
        width: count * side,
        height: side * aspect,
        ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }),
      },
      svg("image", {
        href: detail.picture,
        width: 1 + Math.max(...row.drawn),
        height: row.drawn.length * aspect,
        preserveAspectRatio: "none",
      }),
      ...over,
    );
  };

  const line = (row) => {
    const detail = row.drawn && detailOf(row);
    const picture = detail && detail.picture;
    const button = html(
      "button",
      { type: "button", "aria-expanded": opened.has(row.id), onclick: () => toggle(row), ...(row.id < details ? {} : { disabled: "" }) },
      picture ? part(row, detail, 0, 0, 1, 40, "") : html("i", { class: "none" }),
      html("span", {}, row.name || "(no name)"),
    );
    const drawn = row.drawn ? row.drawn[row.best] : 0;
    const samples = picture ? [part(row, detail, 1, row.best, drawn, 28, `${drawn} samples`)] : [];
    return html(
      "tr",
      { id: `row-${row.id}`, class: opened.has(row.id) ? "opened" : "" },
      html("th", { scope: "row", class: "name" }, button),
      html("td", { class: "samples" }, ...samples),
      html("td", { class: "verdict" }, html("span", { class: row.kind }, row.verdict)),
      ...columns.map((column) => {
        const [text, ends] = row.texts[column.dataset.key];
        return html("td", { class: column.className }, text, ...(ends ? [html("small", {}, ends)] : []));
      }),
    );
  };

  const samplesOf = (row, detail) =>
    Object.entries(detail.similarities).flatMap(([scale, values], y) => [
      html("h3", {}, heading(scale, values.length, row.drawn)),
      html(
        "div",
        { class: "scale" },
        ...values.map((similarity, x) =>
          html(
            "figure",
            { class: similarity >= threshold ? "copy" : "" },
            part(row, detail, x + 1, y, 1, 64, `Sample ${x + 1}`),
            html("figcaption", {}, similarity === null ? "–" : similarity.toFixed(2)),
          ),
        ),
      ),
    ]);
  const heading = (scale, count, drawn) => {
    const samples = `${count} ${count === 1 ? "sample" : "samples"}`;
    return drawn.length > 1 ? `Guidance ${Number(scale)}: ${samples}` : `Samples with their similarity (a copy: at least ${threshold})`;
  };

  // One curve over the steps, from 0 up, with its first and last value.
  const chart = (title, trace, column) => {
    const points = trace.filter((point) => point[column] !== null);
    if (points.length < 2) return "";
    const [W, H, top, bottom] = [220, 96, 22, 16];
    const last = points.at(-1);
    const most = Math.max(...points.map((point) => point[column])) || 1;
    const x = (point) => ((point[0] / last[0]) * (W - 3)).toFixed(1);
    const y = (point) => (H - bottom - (point[column] / most) * (H - bottom - top)).toFixed(1);
    const label = `${title}: ${short(points[0][column])} at step ${points[0][0]}, ${short(last[column])} at step ${last[0]}`;
    return html(
      "figure",
      {},
      html("figcaption", { "aria-hidden": "true" }, title),
      svg(
        "svg",
        { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label },
        svg("line", { x1: 0, x2: W, y1: H - bottom, y2: H - bottom }),
        svg("polyline", { points: points.map((point) => `${x(point)},${y(point)}`).join(" ") }),
        svg("circle", { cx: x(last), cy: y(last), r: 2.5 }),
        svg("text", { x: 0, y: 10 }, `maximum ${short(most)}, last ${short(last[column])}`),
        svg("text", { x: 0, y: H - 4 }, "0"),
        svg("text", { x: W, y: H - 4, "text-anchor": "end" }, `step ${last[0].toLocaleString("en")}`),
      ),
    );
  };

  // The share of copies by the distance of the noise along the direction: samples with their intervals, and the fit.
  const response = ({ parts, fit }) => {
    const [W, H, top, bottom] = [220, 96, 8, 16];
    const far = Math.max(...[...parts, ...fit].map(([distance]) => distance), 1);
    const near = Math.min(0, ...parts.map(([distance]) => distance));
    const x = (distance) => (3 + ((distance - near) / (far - near)) * (W - 6)).toFixed(1);
    const y = (share) => (H - bottom - share * (H - bottom - top)).toFixed(1);
    const told = parts.map(([distance, share]) => `${Math.round(100 * share)} % at ${short(distance)}`).join(", ");
    return html(
      "figure",
      {},
      html("figcaption", { "aria-hidden": "true" }, "Copies, from 0 to 100 %, by distance of the noise"),
      svg(
        "svg",
        { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Share of copies by distance of the noise: ${told}` },
        svg("line", { x1: 0, x2: W, y1: H - bottom, y2: H - bottom }),
        svg("polyline", { points: fit.map(([distance, share]) => `${x(distance)},${y(share)}`).join(" ") }),
        ...parts.flatMap(([distance, share, low, high]) => [
          svg("line", { x1: x(distance), x2: x(distance), y1: y(low), y2: y(high) }),
          svg("circle", { cx: x(distance), cy: y(share), r: 2.5 }),
        ]),
        svg("text", { x: 0, y: H - 4 }, short(near)),
        svg("text", { x: W, y: H - 4, "text-anchor": "end" }, `${short(far)} standard deviations`),
      ),
    );
  };

  const facts = (detail) => [
    ...detail.facts,
    ["Prompt", detail.prompt],
    ["Position", String(detail.index + 1)],
    ["Digest (SHA-256)", detail.digest],
  ];

  // The image under a veil that leaves open what its samples copy.
  const agreeing = (row, detail) => {
    const [veil, sentence] = detail.copied;
    const over = svg("image", { href: veil, class: "veil", width: 1, height: aspect, preserveAspectRatio: "none" });
    return html("figure", {}, part(row, detail, 0, 0, 1, 128, sentence, over), html("figcaption", {}, "copied part; the rest and parts without contrast are faded"));
  };

  const detailed = (row) => {
    const detail = detailOf(row);
    const inside = html("div", {}, html("p", {}, detail.meaning));
    if (detail.picture) {
      const image = html("figure", {}, part(row, detail, 0, 0, 1, 128, `The image ${row.name}`), html("figcaption", {}, "the image"));
      const copied = detail.copied ? [agreeing(row, detail)] : [];
      inside.append(html("div", { class: "beside" }, image, ...copied, html("div", { class: "scales" }, ...samplesOf(row, detail))));
      if (detail.copied) inside.append(html("p", { class: "copied" }, detail.copied[1]));
    }
    if (detail.trace.length) {
      const curves = [["Loss", 1], ["KL, nats per dimension", 2], ["Weight λ", 3]];
      const dose = detail.curve ? [response(detail.curve)] : [];
      inside.append(html("div", { class: "charts" }, ...dose, ...curves.map(([title, column]) => chart(title, detail.trace, column))));
    }
    const known = facts(detail).filter(([, fact]) => fact);
    inside.append(
      html("dl", { class: "settings" }, ...known.map(([name, fact, title = ""]) => html("div", { title }, html("dt", {}, name), html("dd", {}, fact)))),
    );
    return html("tr", { class: "detail", id: `detail-${row.id}` }, html("td", { colspan: 3 + columns.length }, inside));
  };

  const toggle = (row) => {
    const line = field(`row-${row.id}`);
    const open = !opened.delete(row.id);
    if (open) {
      opened.add(row.id);
      line.after(detailed(row));
    } else field(`detail-${row.id}`).remove();
    line.classList.toggle("opened", open);
    line.querySelector("button").setAttribute("aria-expanded", open);
  };

  const wanted = () => {
    const name = field("name").value.toLowerCase();
    const verdicts = new Set([...form.querySelectorAll("[name=verdict]:checked")].map((box) => box.value));
    return (row) => row.name.toLowerCase().includes(name) && verdicts.has(row.verdict);
  };

  // Rows without a value come last in both directions.
  const compare = (a, b) => {
    const [x, y] = [a, b].map((row) => (sorted.key in row.values ? row.values : row)[sorted.key]);
    if (x === null || y === null) return (x === null) - (y === null);
    return sorted.sign * (typeof x === "string" ? inOrder(x, y) : x - y);
  };

  const show = () => {
    const found = rows.filter(wanted()).sort(compare);
    const shown = found.slice(0, limit);
    body.replaceChildren(...shown.flatMap((row) => (opened.has(row.id) ? [line(row), detailed(row)] : [line(row)])));
    for (const heading of headings) {
      const active = heading.dataset.key === sorted.key;
      if (active) heading.setAttribute("aria-sort", sorted.sign > 0 ? "ascending" : "descending");
      else heading.removeAttribute("aria-sort");
    }
    const count = (number) => number.toLocaleString("en");
    field("count").textContent = `${count(shown.length)} of ${count(found.length)} shown` +
      (found.length < rows.length ? `; ${count(rows.length - found.length)} filtered out.` : ".");
    field("more").hidden = shown.length === found.length;
    field("more").textContent = `Show ${count(Math.min(STEP, found.length - shown.length))} more`;
  };
  const restart = () => {
    limit = STEP;
    show();
  };

  for (const heading of headings) {
    heading.querySelector("button").addEventListener("click", () => {
      sorted.sign = sorted.key === heading.dataset.key ? -sorted.sign : 1;
      sorted.key = heading.dataset.key;
      restart();
    });
  }
  form.addEventListener("input", restart);
  form.addEventListener("reset", () => setTimeout(restart));
  form.addEventListener("submit", (event) => event.preventDefault());
  field("more").addEventListener("click", () => {
    limit += STEP;
    show();
  });
  show();
  // The pictures come after this script.
  document.addEventListener("DOMContentLoaded", show);
})();
