// @ts-check
// Buttons that save a chart as a picture. Plotly draws the picture in the browser, on white and with dark text, whatever the page's
// theme is.

/**
 * @typedef {object} Chart what Plotly keeps at the element of a chart
 * @property {object[]} data
 * @property {{ title?: { text?: string }, font?: object, legend?: { font?: object } }} layout
 *
 * @typedef {object} Plotly
 * @property {(figure: object, options: object) => Promise<string>} downloadImage
 */

const FORMATS = ["png", "svg"];
const INK = "#2c2a26";
const PAPER = "#ffffff";

/** Pixels of a PNG for each of the page's. */
const SCALE = 2;

/** @param {Element} block @returns {(HTMLElement & Chart) | null} */
function chartIn(block) {
  return /** @type {(HTMLElement & Chart) | null} */ (block.querySelector(".js-plotly-plot"));
}

/** The file's name without its ending: the run, and the chart's title. @param {Element} block @param {Chart} chart */
function fileName(block, chart) {
  const title = chart.layout.title?.text?.match(/<b>(.*?)<\/b>/)?.[1] ?? block.id;
  const run = document.querySelector("#run-progress [data-run]")?.getAttribute("data-run");
  const of = block.closest("#compared-curves") ? "runs" : (run ?? "run");
  return `${of} ${title}`.replaceAll(/[^\p{L}\p{N}._-]+/gu, "-");
}

/** @param {Element} block @param {string} format */
async function save(block, format) {
  const chart = chartIn(block);
  const { Plotly } = /** @type {{ Plotly?: Plotly }} */ (/** @type {unknown} */ (window));
  if (!chart || !Plotly) return;
  const { width, height } = chart.getBoundingClientRect();
  const { data, layout } = chart;
  const ink = { color: INK };
  const legend = { ...layout.legend, font: { ...layout.legend?.font, ...ink } };
  const onPaper = { ...layout, paper_bgcolor: PAPER, plot_bgcolor: PAPER, font: { ...layout.font, ...ink }, legend };
  const options = { format, width: Math.round(width), height: Math.round(height), scale: SCALE, filename: fileName(block, chart) };
  await Plotly.downloadImage({ data, layout: onPaper }, options);
}

/** @param {Element} block */
function addButtons(block) {
  if (!chartIn(block) || block.querySelector(".rl-chart-files")) return;
  const what = document.querySelector("#chart-save")?.textContent?.trim() ?? "";
  const row = document.createElement("div");
  row.className = "rl-chart-files";
  for (const format of FORMATS) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "rl-small-button";
    button.textContent = format.toUpperCase();
    button.setAttribute("aria-label", `${what} ${format.toUpperCase()}`);
    button.addEventListener("click", () => save(block, format));
    row.append(button);
  }
  block.append(row);
}

/** Puts the buttons at every chart of the Training page from now on, whenever one is drawn. */
export function followCharts() {
  const page = document.querySelector("#training-sections");
  if (!(page instanceof HTMLElement) || page.dataset.charts) return;
  page.dataset.charts = "followed";
  let due = false;
  const look = () => {
    due = false;
    for (const block of page.querySelectorAll(".rl-plot")) addButtons(block);
  };
  const later = () => {
    if (!due) requestAnimationFrame(look);
    due = true;
  };
  new MutationObserver(later).observe(page, { subtree: true, childList: true });
  look();
}
