const LIGHT = `--page:#fff;--ink:#1c2128;--quiet:#57606a;--rule:#d8dee4;--grid:#e8ebee;--card:#f6f8fa;
--tone0:#0063a6;--tone1:#b04a00;--tone2:#00735a;--tone3:#9b3583;--tone4:#6b5b00;--tone5:#57606a;`;
const DARK = `--page:#0f1419;--ink:#e6edf3;--quiet:#9aa5b1;--rule:#343c46;--grid:#262d36;--card:#171d24;
--tone0:#62b6f5;--tone1:#ff9d5c;--tone2:#4bd0a6;--tone3:#f097d6;--tone4:#d9c85a;--tone5:#a5b0bc;`;

const TONES = [0, 1, 2, 3, 4, 5].map((tone) => `.tone${tone}{color:var(--tone${tone})}`).join('\n');
/** Beside a legend's names the marks of the drawings. */
const KEYS = [
  '50% 50%',
  '0',
  'polygon(50% 0,100% 100%,0 100%)',
  'polygon(50% 0,100% 50%,50% 100%,0 50%)',
  'polygon(0 0,100% 0,50% 100%)',
  'polygon(34% 0,66% 0,66% 34%,100% 34%,100% 66%,66% 66%,66% 100%,34% 100%,34% 66%,0 66%,0 34%,34% 34%)',
]
  .map((form, tone) => {
    if (form.startsWith('polygon')) return `.key.tone${tone}{clip-path:${form}}`;
    return form === '0' ? '' : `.key.tone${tone}{border-radius:50%}`;
  })
  .filter((rule) => rule !== '')
  .join('\n');

/**
 * The whole style: colours that differ for colour-blind eyes too (after Okabe and Ito, darker on white and lighter on
 * black, so that text in them can be read), one column on a phone and two where there is room, black on white on paper.
 */
export const STYLE = `
:root{color-scheme:light dark;${LIGHT}}
@media (prefers-color-scheme:dark){:root{${DARK}}}
@media print{:root{color-scheme:light;${LIGHT}}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .3em;overflow-wrap:anywhere}
h1 span{display:inline-block;max-width:100%}
h2{font-size:1.3rem;line-height:1.25;margin:2.2em 0 .3em;padding-top:.9em;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:0 0 .4em}
p{margin:.4em 0}
.quiet,.lead,figcaption,footer{color:var(--quiet)}
.lead,section>p{max-width:44em}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1em;margin:1em 0}
.facts dt{color:var(--quiet)}
.facts dd{margin:0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:1.4em 0 0;padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:10px 14px}
.tiles strong{display:block;font-size:1.4rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tiles small{font-size:.9rem;font-weight:600}
.tiles span{display:block;font-size:.85rem;line-height:1.35;color:var(--quiet)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:28px 32px;margin:1.2em 0}
figure{margin:0;min-width:0;max-width:540px}
figcaption{font-size:.9rem;margin-top:.5em}
svg{display:block;width:100%;height:auto;overflow:visible;font-size:12px}
svg text{fill:var(--quiet)}
svg .label{fill:currentColor;font-weight:600;paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
svg .quiet{fill:var(--quiet);font-weight:400}
.grid,.rail{stroke:var(--grid);fill:none}
.axis{stroke:var(--quiet);fill:none}
.line{stroke:currentColor;stroke-width:1.8;fill:none}
.dashed{stroke-dasharray:5 4}
.mark{fill:currentColor;stroke:var(--page);stroke-width:1}
.roof{stroke:var(--ink);stroke-width:1.4;fill:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2em 1.2em;margin:.4em 0 0;padding:0;font-size:.9rem}
.key{display:inline-block;width:.65em;height:.65em;margin-right:.45em;background:currentColor}
${TONES}
${KEYS}
.scroll{overflow-x:auto;margin:.6em 0 1.6em}
.scroll:focus-visible{outline:2px solid var(--tone0)}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25em .8em .25em 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
thead th{color:var(--quiet);font-weight:600;border-bottom-color:var(--rule)}
tbody th{font-weight:400}
.word{text-align:left}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
footer{margin-top:3em;padding-top:1em;border-top:1px solid var(--rule);font-size:.9rem}
@media (min-width:720px){svg{font-size:10.5px}}
@media (max-width:480px){.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.5em}.tiles{grid-template-columns:1fr 1fr}}
@media print{
body{font-size:10pt}
main{max-width:none;padding:0}
figure,.tiles li,tr{break-inside:avoid}
h2,h3,thead{break-after:avoid}
.figures{grid-template-columns:1fr 1fr}
.scroll{overflow:visible}
table{font-size:.75rem}
svg{font-size:12px}
figcaption{font-size:.8rem}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
`;
