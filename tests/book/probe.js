// What is wrong with the page as it is shown now: an array of sentences, empty when all is well.
() => {
  const wrong = [];
  const article = document.querySelector("article");
  if (!article) return ["there is no article"];
  const shown = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const name = (e) => `${e.tagName.toLowerCase()} "${(e.textContent || "").trim().slice(0, 40)}"`;

  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) wrong.push(`the page is ${wide} px too wide`);

  for (const math of article.querySelectorAll(".math"))
    if (!math.querySelector("mjx-container")) wrong.push(`formula not typeset: ${name(math)}`);
  for (const bad of article.querySelectorAll("mjx-merror, merror"))
    wrong.push(`formula in error: ${name(bad)}`);

  for (const image of article.querySelectorAll("img")) {
    image.loading = "eager";
    if (!image.complete || !image.naturalWidth) wrong.push(`picture not shown: ${image.src}`);
    const alt = image.alt.trim();
    if (!alt || /[\\/]|\.(png|svg|jpe?g)$/i.test(alt)) wrong.push(`no alt text: ${image.src}`);
  }
  for (const svg of article.querySelectorAll("svg[role=img]")) {
    if (!(svg.getAttribute("aria-label") || "").trim()) wrong.push("a drawing without a label");
    const box = svg.getBoundingClientRect();
    if (shown(svg) && (box.width < 20 || box.height < 20)) wrong.push("a drawing has no size");
  }

  // contrast of text with what is behind it (WCAG 2.1, 1.4.3)
  const parse = (c) => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (top, under) => {
    const a = top[3] ?? 1;
    return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a));
  };
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => {
      const s = v / 255;
      return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) {
      const c = parse(getComputedStyle(at).backgroundColor);
      if ((c[3] ?? 1) > 0) layers.push(c);
      if ((c[3] ?? 1) === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const seen = new Set();
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const e = walker.currentNode.parentElement;
    if (!text || seen.has(e) || e.closest("mjx-container, script, style, template, a.headerlink")) continue;
    seen.add(e);
    if (!shown(e)) continue;
    const style = getComputedStyle(e);
    const svg = e.closest("svg");
    const ink = parse(svg ? style.fill : style.color);
    if (svg && e.closest("g[style*='opacity']")) continue;
    const paper = behind(svg ? svg : e);
    const [a, b] = [luminance(over(ink, paper)), luminance(paper)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.6 && parseInt(style.fontWeight) >= 700);
    if (!svg && ratio < (large ? 3 : 4.5))
      wrong.push(`contrast ${ratio.toFixed(1)} of ${name(e)} (${style.color} on ${paper.map(Math.round)})`);
  }
  return [...new Set(wrong)].slice(0, 20);
}
