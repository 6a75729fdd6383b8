"""The page's style sheet. Light and dark follow the reader's own setting; nothing is fetched from anywhere."""

CSS = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--ink:#191d23;--muted:#5a6472;--hair:#e4e7ec;--rule:#c9d0da;
--accent:#2b5fd9;--soft:#2b5fd91f;--good:#14743f;--goodbg:#e2f4e9;--bad:#b42318;--badbg:#fdeae7;--left:#8a5a00;
--leftbg:#fdf1d8;--plain:#eef0f4;--stub:#dfe3ea;--shadow:0 1px 2px #10182810,0 1px 3px #10182814}
@media(prefers-color-scheme:dark){:root{--bg:#0f1216;--card:#171b21;--ink:#e7eaee;--muted:#9aa5b3;--hair:#272d36;
--rule:#3a424e;--accent:#7ea6ff;--soft:#7ea6ff24;--good:#56c98b;--goodbg:#12301f;--bad:#ff8a7a;--badbg:#3a1a16;
--left:#e9b95c;--leftbg:#35280f;--plain:#222831;--stub:#2c333d;--shadow:none}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",
"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:28px 20px 56px}
h1{font-size:22px;line-height:1.25;margin:0;letter-spacing:-.01em;font-weight:650}
h2{font-size:16px;margin:36px 0 10px;font-weight:650;letter-spacing:-.005em}
h3{font-size:13px;margin:0;font-weight:600}
p{margin:0}
.muted,.note{color:var(--muted)}
.note{font-size:13px;margin:0 0 10px;max-width:96ch}
header{display:flex;justify-content:space-between;gap:12px 24px;flex-wrap:wrap;align-items:baseline}
.card{background:var(--card);border:1px solid var(--hair);border-radius:10px;box-shadow:var(--shadow);padding:16px 18px}
.live{display:flex;gap:14px 40px;flex-wrap:wrap;margin-top:16px;align-items:flex-start}
.live dl{margin:0}
dt{font-size:12px;color:var(--muted)}
dd{margin:0;font-weight:600}
.big{font-size:20px;letter-spacing:-.01em;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(5,1fr);gap:12px}
.tile{padding:14px 14px 12px;display:flex;flex-direction:column;min-width:0}
.tile .value{font-size:23px;font-weight:650;letter-spacing:-.02em;line-height:1.2;margin-top:2px;white-space:nowrap}
.tile .value small{font-size:13px;font-weight:500;color:var(--muted);letter-spacing:0}
.tile .before{font-size:12px;color:var(--muted);margin-bottom:10px;min-height:2.9em;line-height:1.45}
.tile .spark{height:30px;margin-top:auto}
svg{display:block;width:100%;height:100%;overflow:visible}
.line{fill:none;stroke:var(--accent);stroke-width:1.6;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.area{fill:var(--soft);stroke:none}
.old.line{stroke:var(--muted)}
.bar{fill:var(--accent)}
.err{fill:var(--bad)}
.stub{fill:var(--stub)}
.panel+.panel{margin-top:18px}
.paneltop{display:flex;justify-content:space-between;align-items:baseline;gap:12px;margin-bottom:5px}
.top{font-size:12px;color:var(--muted)}
.plot{position:relative;height:84px;border-bottom:1px solid var(--rule);border-top:1px dashed var(--hair)}
.plot svg{position:absolute;inset:0}
.tick{position:absolute;top:0;bottom:0;width:1px;background:var(--hair)}
.rule{position:absolute;top:-4px;bottom:0;width:11px;margin-left:-5px}
.rule::before{content:"";position:absolute;left:5px;top:0;bottom:0;width:1px;background:currentColor;opacity:.5}
.rule::after{content:"";position:absolute;left:2px;top:-1px;width:7px;height:7px;border-radius:50%;
background:currentColor}
.rule.good{color:var(--good)}.rule.bad{color:var(--bad)}.rule.left{color:var(--left)}
.rule.bad::after{border-radius:0;transform:rotate(45deg)}
.rule.left::after{border-radius:0}
.ticks{position:relative;height:18px;font-size:12px;color:var(--muted);margin-top:3px}
.ticks i{font-style:normal}
.ticks span{position:absolute;padding-left:3px;white-space:nowrap}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:12px;color:var(--muted);margin:14px 0 0;padding:0;
list-style:none}
.key li{display:flex;align-items:center;gap:7px}
.key i{width:8px;height:8px;border-radius:50%;background:var(--good)}
.key .bad i{background:var(--bad);border-radius:0;transform:rotate(45deg)}
.key .left i{background:var(--left);border-radius:0}
.pill{display:inline-block;border-radius:999px;padding:1px 9px;font-size:12px;font-weight:600;white-space:nowrap;
background:var(--plain);color:var(--muted)}
.pill.good{background:var(--goodbg);color:var(--good)}
.pill.bad{background:var(--badbg);color:var(--bad)}
.pill.left{background:var(--leftbg);color:var(--left)}
.switches{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:12px}
.switch header{flex-wrap:nowrap;align-items:center;margin-bottom:2px;gap:8px}
.switch h3{font-size:14px;overflow-wrap:anywhere}
.switch .plot{height:56px;margin-top:12px}
.switch table{margin-top:10px}
.switch td,.switch th{padding:3px 0;border:0;font-size:13px;text-align:right}
.switch th:first-child{text-align:left;padding-left:0}
.switch thead th{font-weight:500}
.reason{font-size:13px;margin-top:6px;color:var(--muted);overflow-wrap:anywhere}
.mid .rule{color:var(--muted)}
.mid .rule::after{display:none}
table{border-collapse:collapse;width:100%;font-size:14px}
caption{text-align:left;position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th{font-size:12px;font-weight:500;color:var(--muted);text-align:left}
th,td{padding:8px 12px 8px 0;border-bottom:1px solid var(--hair);vertical-align:top}
tbody tr:last-child>*{border-bottom:0}
tbody th{font-size:14px;font-weight:600;color:var(--ink)}
.what{white-space:nowrap}
.what span{font-weight:500;display:block;font-size:13px;color:var(--muted)}
.num{text-align:right;white-space:nowrap}
.wrap{overflow-x:auto}
.grid2{display:grid;grid-template-columns:1fr 1fr;gap:12px;align-items:start}
.meter{height:8px;border-radius:4px;background:var(--stub);overflow:hidden;margin:6px 0 4px}
.meter span{display:block;height:100%;background:var(--accent);border-radius:4px}
.meter.hot span{background:var(--bad)}
.disk+.disk{margin-top:14px}
.disk div:first-child{display:flex;justify-content:space-between;gap:12px;font-weight:600}
.small{font-size:13px;font-weight:400}
.alarm{border-color:var(--bad);margin-top:14px}
.alarm strong{color:var(--bad)}
details{margin-top:12px;font-size:13px}
summary{cursor:pointer;color:var(--muted)}
summary:focus-visible,a:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
footer{margin-top:36px;font-size:13px;color:var(--muted)}
@media(max-width:900px){.tiles{grid-template-columns:repeat(auto-fill,minmax(150px,1fr))}}
@media(max-width:640px){
main{padding:18px 14px 40px}.tiles{grid-template-columns:1fr 1fr;gap:10px}.tile .value{font-size:20px}
.ticks i{display:none}.tile:last-child{grid-column:1/-1}
.grid2{grid-template-columns:1fr}.card{padding:14px}.switches{grid-template-columns:1fr}
.stack thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
.stack tr{display:grid;grid-template-columns:1fr auto;gap:2px 10px;padding:11px 0;border-bottom:1px solid var(--hair)}
.stack tbody tr:last-child{border-bottom:0;padding-bottom:2px}
.stack tbody tr:first-child{padding-top:2px}
.stack td,.stack th{padding:0;border:0;min-width:0}
.stack .verdict{text-align:right}
.stack .wide{grid-column:1/-1;color:var(--muted);font-size:13px}
.stack td:empty{display:none}
.what span{display:inline;font-size:14px;margin-left:4px}
.stack .num{text-align:left;font-size:13px;color:var(--muted);grid-column:auto}
.stack [data-name]::before{content:attr(data-name) " "}
}
@media print{body{background:#fff}.card{box-shadow:none;break-inside:avoid}}
"""
