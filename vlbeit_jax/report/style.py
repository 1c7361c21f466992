"""The style of the pages: light and dark, wide and narrow, on screen and on paper."""

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --box: #f6f8fa;
  --good: #116329; --good-box: #dafbe1; --unclear: #7d4e00; --unclear-box: #fff3c4;
  --bad: #a40e26; --bad-box: #ffe3e0; --mask: #fde68a; --bar: #2563eb; --link: #0550ae }
@media screen and (prefers-color-scheme: dark) { :root {
  --page: #0d1117; --ink: #e6edf3; --soft: #9da7b3; --line: #3d444d; --box: #161b22;
  --good: #56d364; --good-box: #12361f; --unclear: #e3b341; --unclear-box: #3a2d0a;
  --bad: #ff8b84; --bad-box: #4a1a1b; --mask: #5f4a08; --bar: #5b9bff; --link: #79b8ff } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .5rem; padding-top: .6rem;
  border-top: 1px solid var(--line) }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem }
p { margin: .5rem 0; max-width: 46rem }
a { color: var(--link) }
code, pre { font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
code { overflow-wrap: anywhere }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .8rem;
  overflow-x: auto }
.note, figcaption, caption, dd { color: var(--soft); font-size: .9rem }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0;
  margin: 1rem 0 }
.short { background: var(--box); border: 1px solid var(--line); border-radius: 8px;
  padding: .4rem 1rem; margin: 1rem 0 }
.short ul { list-style: none; padding: 0; margin: .4rem 0 }
.short li { margin: .55rem 0 }
.verdict { display: inline-block; border-radius: 5px; padding: 0 .5rem; font-weight: 600;
  font-size: .9rem; border: 1px solid currentColor }
.good { color: var(--good); background: var(--good-box) }
.unclear { color: var(--unclear); background: var(--unclear-box) }
.bad { color: var(--bad); background: var(--bad-box) }
.none { color: var(--soft); background: var(--box) }
.reason { display: block; font-size: .9rem; margin-top: .25rem }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
caption { text-align: left; padding-bottom: .4rem }
th, td { text-align: left; vertical-align: top; padding: .55rem .9rem .55rem 0;
  border-bottom: 1px solid var(--line); font-weight: 400 }
thead th { color: var(--soft); font-size: .85rem; vertical-align: bottom; white-space: nowrap }
tbody th strong { font-weight: 600 }
td { overflow-wrap: break-word }
td, .number { font-variant-numeric: tabular-nums }
td .note { display: block } .example td .note { display: inline }
tbody th .note { display: block; margin: .15rem 0 0; min-width: 16rem }
.bar { display: block; width: 100%; min-width: 7rem; max-width: 14rem; height: 1rem;
  margin-top: .3rem }
.bar .track { fill: var(--line) } .bar .value { fill: var(--bar) }
.bar .base { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 3 2 }
dl { margin: .5rem 0 } dl > div { margin: .4rem 0; max-width: 46rem }
dt { font-weight: 600; display: inline } dt::after { content: ": " }
dd { display: inline; margin: 0 }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  gap: 1rem; margin: .8rem 0 }
.panels img { width: 100%; height: auto; display: block }
figure { margin: 0 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
  gap: 1rem; margin: 1rem 0; padding: 0; list-style: none }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .7rem; break-inside: avoid }
.strip { display: flex; gap: .5rem; flex-wrap: wrap }
.strip figure { flex: 1 1 0; min-width: 4rem; max-width: 9rem }
.strip img { width: 100%; height: auto; display: block; image-rendering: pixelated;
  border: 1px solid var(--line) }
figcaption { font-size: .8rem; line-height: 1.3; margin-top: .2rem }
.example { border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; margin: 1rem 0;
  break-inside: avoid }
.example table { margin: .5rem 0 0 } .example tbody th { white-space: nowrap }
.example .strip figure { flex: 0 0 6rem }
.text { font-size: 1.05rem; overflow-wrap: anywhere }
mark { background: var(--mask); color: inherit; border-radius: 3px; padding: 0 .25rem;
  border-bottom: 2px solid currentColor }
mark sup { font-size: .7em; line-height: 0; margin-right: .1rem }
.guess { white-space: nowrap; font-variant-numeric: tabular-nums }
.guess:not(:last-child)::after { content: " ·"; color: var(--soft); font-weight: 400;
  display: inline-block; white-space: pre }
.floors { display: inline-block; min-width: 12rem }
.first { color: var(--good); font-weight: 600 } .later { text-decoration: underline }
@media (min-width: 721px) { .verdict { white-space: nowrap } }
details { margin: .8rem 0 } summary { cursor: pointer; color: var(--link) }
@media (max-width: 720px) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
  table, tbody, tr, th, td, caption { display: block }
  tbody tr { border: 1px solid var(--line); border-radius: 8px; margin: .7rem 0;
    padding: .5rem .8rem }
  tbody th, td { border: 0; padding: .25rem 0 }
  td { display: flex; gap: .6rem }
  td::before { content: attr(data-head); flex: 0 0 6.5rem; color: var(--soft); font-size: .85rem }
  td > div { flex: 1; min-width: 0 }
  td .note { display: block } .example td .note { display: inline }
tbody th .note { min-width: 0 }
}
@media print {
  body { font-size: 10.5pt } main { max-width: none; padding: 0 } nav { display: none }
  h2 { break-after: avoid } tr, figure { break-inside: avoid }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
}
"""
