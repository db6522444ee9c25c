"""What is wrong with a page of the rendered book, as a browser lays it out."""

from __future__ import annotations

import re
from pathlib import Path

from browser import Browser

LIGHT = {"book": 3.0, "notebooks": 5.0}  # the most megabytes of a page, by its folder
GAP = 8  # the least pixels between what stands in two neighbouring cells of a table
CONTRAST = 4.5  # WCAG 2, level AA
SHRUNK = 2.0  # a figure's smallest text, of 8 points at 110 dots an inch, is then 6 pixels high
LONGEST = 25_000  # the most pixels of a page's height on a phone: about thirty screens
LINES = 40  # the most of a cell that is open: at 1280 x 800 pixels they just fit between the bars

TOOLS = """
const article = document.querySelector('.bd-article') || document.body;
const shown = e => e.getClientRects().length > 0 && e.checkVisibility();
const all = what => [...article.querySelectorAll(what)].filter(shown);
const say = e => e.textContent.trim().replace(/\\s+/g, ' ').slice(0, 60);
const text = e => { const r = document.createRange(); r.selectNodeContents(e); return r.getBoundingClientRect(); };
const scroller = e => { for (; e && e !== document.body; e = e.parentElement)
  if (['auto', 'scroll'].includes(getComputedStyle(e).overflowX)) return e; };
const found = [];
"""
TABLES = """
for (const table of all('table')) {
  if (table.matches('.indextable')) continue;
  for (const row of table.rows) for (let i = 1; i < row.cells.length; i++) {
    const [a, b] = [row.cells[i - 1], row.cells[i]];
    if (say(a) && say(b) && shown(a) && text(b).left - text(a).right < GAP)
      { found.push(`columns run together: ${say(row)}`); break; }
  }
}
"""
# Zeros without end, decimals of thousands or without end, e for a power, a hyphen for a minus, "at most 0".
# Code, formulas and links count as a letter: what stands in them is no number of the page's.
NUMBERS = r"""
const words = e => { const copy = e.cloneNode(true);
  copy.querySelectorAll('pre, code, script, style, svg, a, mjx-container, .math').forEach(c => c.replaceWith('x'));
  return copy.textContent.trim().replace(/\s+/g, ' '); };
const zeros = /(?<![\w.,\/])\d+\.0{4,}(?![\d\/]|\.\d)/, tail = /(?<![\w.,\/])\d+\.\d{8,}/;
const power = /(?<![\w.])\d(\.\d+)?e[-+]\d\d(?!\w)/, minus = /(?<![\w.,)\]-])-(?=\.?\d)/;
const thousands = /(?<![\w.,\/])\d{4,}\.0+(?![\d\/]|\.\d)/, rounded = /\bat most 0(\.0+)?(?![.,]?\d)(?!\w)/;
const faults = [
  ['p:not(td p), figcaption:not(:has(p))', words, [zeros, tail, thousands, power, rounded]],
  ['td, th', words, [zeros, tail, /^[-−+]?\d{4,}\.\d+$/, minus]],
  ['.cell_output :is(td, th)', words, [power]],
  ['.cell_output pre', e => e.textContent, [zeros, tail]],
];
for (const [where, what, rules] of faults) for (const e of all(where)) for (const rule of rules) {
  const hit = rule.exec(what(e));
  if (hit) found.push(`a number is not set for reading: ${what(e).slice(Math.max(0, hit.index - 20), hit.index + 30)}`);
}
"""
WIDE = """
for (const table of all('table')) {
  const box = scroller(table.parentElement);
  if (table.getBoundingClientRect().right > (box ? box.getBoundingClientRect().left + box.clientWidth : innerWidth) + 1)
    found.push(`a table is cut: ${say(table)}`);
}
for (const code of all('.cell_input pre'))
  if (code.scrollWidth > code.clientWidth + 1)
    found.push(`code is clipped by ${code.scrollWidth - code.clientWidth} pixels: ${say(code)}`);
"""
NARROW = """
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) found.push(`the page scrolls sideways by ${root.scrollWidth - root.clientWidth} pixels`);
for (const wide of all('table, pre'))
  if ((wide.scrollWidth > wide.clientWidth + 1 || wide.getBoundingClientRect().right > innerWidth + 1) && !scroller(wide))
    found.push(`does not scroll by itself: ${say(wide)}`);
for (const image of all('.cell_output img, figure img')) {
  const times = image.naturalWidth / image.getBoundingClientRect().width;
  if (times > SHRUNK + .01) found.push(`a figure is ${times.toFixed(1)} times smaller than drawn: ${image.alt.slice(0, 60)}`);
  const box = scroller(image);
  if (box && image.offsetWidth > box.clientWidth + 1 && box.tabIndex < 0)
    found.push(`a figure scrolls, and not by the keyboard: ${image.alt.slice(0, 60)}`);
}
"""
SCORECARD = """
if (root.scrollHeight > LONGEST) found.push(`is ${root.scrollHeight} pixels high, more than LONGEST`);
"""
DARK = """
const rgba = c => { const p = c.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = e => { for (; e; e = e.parentElement)
  { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > .5) return c; } return [255, 255, 255, 1]; };
for (const e of all('figcaption, figcaption *, .cell_output table :is(th, td), table.table :is(th, td)')) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
  const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (contrast < CONTRAST) found.push(`contrast ${contrast.toFixed(1)} in the dark: ${say(e)}`);
}
for (const e of all('img.drawing'))
  if (!/invert/.test(getComputedStyle(e).filter)) found.push(`a drawing is a pale slab in the dark: ${e.alt.slice(0, 60)}`);
for (const e of all('.cell_output img:not(.drawing)'))
  if (/invert/.test(getComputedStyle(e).filter)) found.push(`a picture is a negative in the dark: ${e.alt.slice(0, 60)}`);
for (const e of all('.cell_output table, table.table'))
  if (light(behind(e)) > .4) found.push(`a table lies on a pale slab in the dark: ${say(e)}`);
"""
WHOLE = """
const names = [...document.querySelectorAll('[id]')].map(e => e.id);
for (const name of new Set(names.filter((name, i) => names.indexOf(name) < i))) found.push(`two elements have the id ${name}`);
for (const line of all('.cell_output pre')) if (/^\\w+ = \\S+$/m.test(line.textContent) && /^(\\w+ = [^\\n]*\\n?)+$/.test(line.textContent.trim()))
  found.push(`bookkeeping: ${say(line)}`);
for (const code of all('.cell_input pre')) {
  const call = /(?<![\\w.])record\\(.*/.exec(code.textContent), n = code.textContent.trimEnd().split('\\n').length;
  if (call) found.push(`bookkeeping in the code: ${call[0]}`);
  if (n > LINES) found.push(`a cell shows ${n} lines of code: ${say(code)}`);
}
const folded = article.querySelector('details.hide, .cell.tag_hide-cell, .cell.tag_hide-input');
const sentence = [...article.querySelectorAll('h1 ~ p, h1 ~ ul li')].find(e => say(e).split(' ').length > 5);
if (folded && !(sentence?.compareDocumentPosition(folded) & Node.DOCUMENT_POSITION_FOLLOWING))
  found.push('a folded cell stands before the first sentence');
"""
# Without transitions: a colour read half way from light to dark is nobody's colour.
DARKEN = """
document.head.appendChild(document.createElement('style')).textContent =
  '*, *::before, *::after { transition: none !important; animation: none !important; }';
document.documentElement.dataset.theme = 'dark';
document.getAnimations().forEach(a => a.cancel());
0"""
AXE = """axe.run({resultTypes: ['violations'], rules: {region: {enabled: false}}}).then(r => r.violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => `axe: ${v.id} (${v.impact}), ${v.nodes.length} times, as in ${v.nodes[0].html.slice(0, 160)}`))"""


def page_faults(browser: Browser, address: str, axe: str = "") -> list[str]:
    """Return one line for every fault of the page at ``address``.

    Parameters
    ----------
    axe : the source of axe-core, or "" to leave its audit out
    """
    browser.open(address, width=1280)
    found = [f"console: {message}" for message in browser.messages]
    most = LIGHT["notebooks" if "/notebooks/" in address else "book"]
    if browser.weight > most * 1e6:
        found.append(f"weighs {browser.weight / 1e6:.1f} MB, more than {most:g}")
    found += _look(browser, WHOLE + NUMBERS + TABLES + WIDE)
    if axe:
        browser.evaluate(f"{axe}; 0")
        found += browser.evaluate(AXE)
    browser.resize(390)
    found += [
        f"at 390 pixels: {fault}"
        for fault in _look(browser, TABLES + NARROW + SCORECARD * ("scorecard" in address))
    ]
    browser.resize(1280)
    browser.evaluate(DARKEN)
    if axe:
        in_the_dark = AXE.replace("{resultTypes", "{runOnly: ['color-contrast'], resultTypes")
        found += [f"in the dark: {fault}" for fault in browser.evaluate(in_the_dark)]
    return found + _look(browser, DARK)


def _look(browser: Browser, script: str) -> list[str]:
    script = re.sub(
        r"\b(GAP|CONTRAST|LINES|SHRUNK|LONGEST)\b", lambda name: str(globals()[name[0]]), TOOLS + script
    )
    return browser.evaluate(f"(() => {{ {script} return found; }})()")


def pages(html: Path) -> list[str]:
    """Return the addresses, within the book, of the pages that a reader opens."""
    return sorted(
        page.relative_to(html).as_posix() for folder in LIGHT for page in (html / folder).glob("*.html")
    )
