"use strict";
// Draws the report from the table in #data. Colours and wording follow the static pictures.
const D = JSON.parse(document.getElementById("data").textContent);
const BLUE = "#0072B2", ORANGE = "#D55E00", GREY = "#777777";
const SERIES = [BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
const LAYOUT = {template: "plotly_white", margin: {l: 80, r: 20, t: 30, b: 60}, font: {size: 13}, height: 420,
                paper_bgcolor: "white", plot_bgcolor: "white"};
const CONFIG = {responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg"}};
const NONE = "(none)";
for (const row of D.rows) for (const axis of D.axes) if (row[axis] === null || row[axis] === undefined) row[axis] = NONE;
const finite = values => values.filter(v => typeof v === "number" && isFinite(v));
const median = values => {
  const s = finite(values).sort((a, b) => a - b);
  return s.length ? (s[(s.length - 1) >> 1] + s[s.length >> 1]) / 2 : null;
};
const quantile = (values, q) => {
  const s = finite(values).sort((a, b) => a - b);
  if (!s.length) return null;
  const at = q * (s.length - 1), low = Math.floor(at), high = Math.ceil(at);
  return s[low] + (at - low) * (s[high] - s[low]);
};
const AGGREGATE = {
  "median": median,
  "best": v => finite(v).length ? (D.direction === "min" ? Math.min(...finite(v)) : Math.max(...finite(v))) : null,
  "worst": v => finite(v).length ? (D.direction === "min" ? Math.max(...finite(v)) : Math.min(...finite(v))) : null,
};
const DIVERGED = "share that diverged";
const value = (row, name) => name === DIVERGED ? (row.status === "diverged" ? 1 : 0) : row[name];
const levels = name => {
  const all = [...new Set(D.rows.map(r => r[name]))], names = all.filter(v => typeof v !== "number" && v !== NONE);
  return [...all.filter(v => typeof v === "number").sort((a, b) => a - b), ...names, ...all.filter(v => v === NONE)];
};
const short = v => typeof v === "number" ? String(parseFloat(v.toPrecision(7))) : String(v);
const shorter = v => typeof v === "number" ? String(parseFloat(v.toPrecision(4))) : String(v);
const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const censored = (row, name) => row[`censored/${name}`] === true;  // the number is that or more
const written = (row, name) => (censored(row, name) ? "≥ " : "") + shorter(row[name]);
function select(id, options, chosen, changed) {
  const box = document.getElementById(id);
  for (const o of options) box.add(new Option(o, o, false, o === chosen));
  box.addEventListener("change", changed);
  return box;
}
function logarithmic(values) {
  const v = finite(values);
  return v.length > 1 && Math.min(...v) > 0 && Math.max(...v) / Math.min(...v) > 10;
}
function heat() {
  const [x, y, metric, how] = ["heat-x", "heat-y", "heat-metric", "heat-how"].map(i => document.getElementById(i).value);
  const xs = levels(x), ys = levels(y);
  const cells = ys.map(b => xs.map(a => D.rows.filter(r => r[x] === a && r[y] === b)));
  const mean = v => v.length ? v.reduce((a, b) => a + b, 0) / v.length : null;
  const z = cells.map(line => line.map(rows => {
    const alive = metric === DIVERGED ? rows : rows.filter(r => r.status !== "diverged");
    return metric === DIVERGED ? mean(rows.map(r => value(r, metric))) : AGGREGATE[how](alive.map(r => value(r, metric)));
  }));
  const log = logarithmic(z.flat());
  const limit = cells.map((line, i) => line.map((rows, j) =>
    rows.some(r => censored(r, metric) && r[metric] <= z[i][j]) ? "≥ " : ""));
  const labels = z.map((line, i) => line.map((v, j) => v === null ? "" : limit[i][j] + String(parseFloat(v.toPrecision(3)))));
  const hover = cells.map((line, i) => line.map((rows, j) =>
    `${x} = ${short(xs[j])}<br>${y} = ${short(ys[i])}<br>${metric}: ${z[i][j] === null ? "none" : limit[i][j] + shorter(z[i][j])}` +
    `<br>${counted(rows.length, "member")}, ${rows.filter(r => r.status === "diverged").length} diverged`));
  const marks = [];
  cells.forEach((line, i) => line.forEach((rows, j) => {
    const bad = rows.filter(r => r.status === "diverged").length;
    if (bad) marks.push({x: short(xs[j]), y: short(ys[i]), text: `${bad}/${rows.length} ×`, showarrow: false,
                         yshift: z[i][j] === null ? 0 : -14, font: {color: ORANGE, size: 11}});
  }));
  const shown = z.map(line => line.map(v => v === null ? null : log ? Math.log10(v) : v));
  const all = finite(shown.flat()), ticks = log ? [0, .25, .5, .75, 1].map(q => Math.min(...all) + q * (Math.max(...all) - Math.min(...all))) : null;
  const bar = log ? {title: {text: metric}, tickvals: ticks, ticktext: ticks.map(t => shorter(Math.pow(10, t)))} : {title: {text: metric}};
  Plotly.react("heat", [{type: "heatmap", x: xs.map(short), y: ys.map(short), z: shown, text: labels,
    texttemplate: "%{text}", hovertext: hover, hoverinfo: "text",
    colorscale: "Cividis", colorbar: bar, xgap: 2, ygap: 2}],
    {...LAYOUT, xaxis: {title: {text: x}, type: "category", automargin: true}, yaxis: {title: {text: y}, type: "category", automargin: true}, annotations: marks}, CONFIG);
}
function curves() {
  const by = document.getElementById("curves-by").value, metric = D.goal, traces = [];
  levels(by).forEach((level, k) => {
    const members = D.rows.filter(r => r[by] === level && D.curves[r.member]);
    const steps = [...new Set(members.flatMap(r => D.curves[r.member].step))].sort((a, b) => a - b);
    const at = steps.map(s => members.map(r => {
      const i = D.curves[r.member].step.indexOf(s);
      return i < 0 ? null : D.curves[r.member].score[i];
    }));
    const colour = SERIES[k % SERIES.length], name = short(level);
    const band = q => at.map(v => quantile(v, q));
    traces.push({x: steps, y: band(.25), mode: "lines", line: {width: 0}, hoverinfo: "skip", showlegend: false, legendgroup: name});
    traces.push({x: steps, y: band(.75), mode: "lines", line: {width: 0}, fill: "tonexty", fillcolor: colour + "22",
                 hoverinfo: "skip", showlegend: false, legendgroup: name});
    traces.push({x: steps, y: at.map(median), mode: "lines", line: {color: colour, width: 2}, name, legendgroup: name});
  });
  const log = logarithmic(traces.flatMap(t => t.y));
  Plotly.react("curves", traces, {...LAYOUT, xaxis: {title: {text: "training step"}},
    yaxis: {title: {text: `validation ${metric}`}, type: log ? "log" : "linear"}, legend: {title: {text: by}}}, CONFIG);
}
function scatter() {
  const [x, y, by] = ["scatter-x", "scatter-y", "scatter-by"].map(i => document.getElementById(i).value);
  const place = r => `${shorter(value(r, x))} ${shorter(value(r, y))}`, heaps = {};
  for (const row of D.rows) (heaps[place(row)] = heaps[place(row)] || []).push(row);
  const bound = r => censored(r, x) || censored(r, y);
  const traces = levels(by).map((level, k) => {
    const rows = D.rows.filter(r => r[by] === level);
    const here = rows.map(r => heaps[place(r)]);
    return {x: rows.map(r => value(r, x)), y: rows.map(r => value(r, y)), mode: "markers+text", type: "scatter", name: short(level),
            text: rows.map((r, i) => here[i].length > 1 && here[i][0] === r ? `${here[i].length}×` : ""), textposition: "top right",
            hovertext: rows.map((r, i) => D.axes.map(a => `${a} = ${short(r[a])}`).join("<br>") +
              (here[i].length > 1 ? `<br>${here[i].length} members here` : "") + (bound(r) ? "<br>or more" : "")), hoverinfo: "x+y+text",
            marker: {color: SERIES[k % SERIES.length], size: 8,
                     symbol: rows.map(r => r.status === "diverged" ? "x" : censored(r, x) ? "triangle-right" : censored(r, y) ? "triangle-up" : "circle")}};
  });
  const type = name => logarithmic(D.rows.map(r => value(r, name))) ? "log" : "linear";
  Plotly.react("scatter", traces, {...LAYOUT, xaxis: {title: {text: x}, type: type(x)}, yaxis: {title: {text: y}, type: type(y)},
    legend: {title: {text: by}}}, CONFIG);
  const limits = [...new Set(D.rows.flatMap(r => [x, y].filter(n => censored(r, n)).map(n => `≥ ${shorter(r[n])}`)))];
  document.getElementById("scatter-note").textContent = limits.length ? `Triangles: only known to be ${limits.join(", ")}.` : "";
}
function effects() {
  const axis = document.getElementById("effects-axis").value, found = D.effects[axis];
  const y = found.map(e => e.median), log = logarithmic(y);
  Plotly.react("effects", [{x: found.map(e => short(e.value)), y, mode: "markers", marker: {color: BLUE, size: 10},
    error_y: {type: "data", symmetric: false, array: found.map(e => e.high === null ? null : Math.max(0, e.high - e.median)),
      arrayminus: found.map(e => e.low === null ? null : Math.max(0, e.median - e.low)), color: BLUE},
    text: found.map(e => `${counted(e.members, "member")}, ${counted(e.seeds, "seed")}, ${e.diverged} diverged`), hoverinfo: "x+y+text"}],
    {...LAYOUT, xaxis: {title: {text: axis}, type: "category", automargin: true}, yaxis: {title: {text: `median ${D.score}`}, type: log ? "log" : "linear"}}, CONFIG);
  document.getElementById("effects-note").textContent = found.map(e => `${short(e.value)}: ${counted(e.members, "member")}, ${counted(e.seeds, "seed")}, ${e.diverged} diverged, ` +
    (e.coverage ? `the interval covers ${Math.round(100 * e.coverage)} %` : "no interval of one seed") +
    (e.coverage && (e.low === null || e.high === null) ? " and is open to members that diverged" : "")).join(" · ");
}
function correlations() {
  const names = Object.keys(D.correlations);
  Plotly.newPlot("correlations", [{type: "bar", orientation: "h", y: names, x: names.map(n => D.correlations[n][0]), marker: {color: BLUE},
    text: names.map(n => `p = ${D.correlations[n][1].toPrecision(2)} over ${counted(D.correlations[n][4], "start")}, corrected for ${counted(names.length, "reading")}; ${counted(D.correlations[n][2], "member")}` +
      (D.correlations[n][3].length ? `, within each ${D.correlations[n][3].join(", ")}` : "")), hoverinfo: "x+text"}],
    {...LAYOUT, height: 120 + 32 * names.length, xaxis: {range: [-1, 1], title: {text: `rank correlation with ${D.score}`}}, yaxis: {automargin: true, autorange: "reversed"}}, CONFIG);
}
function members() {
  const table = document.getElementById("members"), head = table.createTHead().insertRow(), body = table.createTBody();
  const columns = D.columns.filter(name => !name.startsWith("censored/"));
  let order = 1;
  const fill = rows => body.replaceChildren(...rows.map(row => {
    const line = document.createElement("tr");
    for (const name of columns) line.insertCell().textContent = row[name] === null || row[name] === undefined ? "" : written(row, name);
    return line;
  }));
  columns.forEach(name => {
    const cell = document.createElement("th");
    cell.textContent = name;
    cell.addEventListener("click", () => {
      order = -order;
      const absent = row => row[name] === null || row[name] === undefined;
      fill([...D.rows].sort((a, b) => absent(a) || absent(b) ? absent(a) - absent(b)
        : order * (a[name] > b[name] ? 1 : a[name] < b[name] ? -1 : 0)));
    });
    head.appendChild(cell);
  });
  fill(D.rows);
}
window.addEventListener("error", e => { document.body.dataset.ready = `error: ${e.message}`; });
const drawn = [];
if (D.axes.length) {
  const varied = D.axes.filter(a => levels(a).length > 1), [x, y] = [...varied, ...D.axes, ...D.axes];
  const metrics = [D.score, ...D.metrics.filter(m => m !== D.score), DIVERGED];
  select("heat-x", D.axes, x, heat); select("heat-y", D.axes, y, heat);
  select("heat-metric", metrics, D.score, heat); select("heat-how", Object.keys(AGGREGATE), "median", heat);
  select("curves-by", D.axes, x, curves);
  select("effects-axis", Object.keys(D.effects), x, effects);
  const first = D.metrics.find(m => m.startsWith("init_lambda_1")) || D.metrics.find(m => m.startsWith("init_horizon")) || D.score;
  select("scatter-x", metrics, first, scatter); select("scatter-y", metrics, D.score, scatter); select("scatter-by", D.axes, y, scatter);
  drawn.push(heat, curves, effects, scatter);
}
if (Object.keys(D.correlations).length) drawn.push(correlations);
drawn.push(members);
for (const draw of drawn) draw();
document.body.dataset.ready = document.body.dataset.ready || "ok";
