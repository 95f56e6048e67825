"""How a report looks: one sheet for light and dark screens."""

STYLE = """
:root { color-scheme: light dark; --text: #1d2733; --soft: #5b6b7b; --line: #dfe5ea; --back: #ffffff;
  --first: #0b6bcb; --second: #d9730d; --right: 11 107 203; --wrong: 217 48 37; }
@media (prefers-color-scheme: dark) { :root { --text: #e6ebf0; --soft: #9aa9b8; --line: #33404c; --back: #151b21;
  --first: #5aa9f8; --second: #f0a04b; --right: 90 169 248; --wrong: 255 107 96; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .2rem 0 1rem; } .soft { color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: 1.2rem 1.8rem; margin: 1.5rem 0; }
.figures b { display: block; font-size: 1.45rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.chart { flex: 1 1 420px; min-width: 0; max-width: 480px; }
.chart .grid { stroke: var(--line); } .chart .tick { fill: var(--soft); font-size: 11px; }
.chart .title { fill: var(--text); font-size: 14px; font-weight: 600; }
.chart polyline { fill: none; stroke-width: 2; } .chart polyline.first { stroke: var(--first); }
.chart polyline.second { stroke: var(--second); } .chart circle.first { fill: var(--first); }
.chart circle.second { fill: var(--second); } .chart rect.first { fill: var(--first); fill-opacity: .75; }
.chart rect.count { fill: var(--soft); fill-opacity: .55; }
.chart line.second { stroke: var(--second); stroke-width: 2; stroke-dasharray: 5 4; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.matrix td { width: 3.1rem; min-width: 2.2rem; height: 2rem; text-align: center; border: 1px solid var(--line); }
.matrix th { font-weight: 600; padding: .2rem .6rem; } .matrix tbody th { text-align: right; white-space: nowrap; }
.table th, .table td { padding: .15rem 1.4rem .15rem 0; text-align: right; border-bottom: 1px solid var(--line); }
.table th:first-child { text-align: left; font-weight: 600; } .table thead th { color: var(--soft); font-weight: 400; }
.facts th { text-align: left; font-weight: 400; color: var(--soft); padding-right: 2rem; vertical-align: top; }
.facts td { overflow-wrap: anywhere; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 1rem .8rem; }
.gallery figure { margin: 0; font-size: 12px; line-height: 1.35; }
.gallery img { width: 100%; image-rendering: pixelated; border: 1px solid var(--line); display: block; }
.gallery b { color: rgb(var(--wrong)); } .gallery figcaption { overflow-wrap: anywhere; }
"""
