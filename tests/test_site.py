"The site, built as readers get it: what must be on a page, where links lead, and what a browser makes of it"
import ast
import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

root = Path(__file__).resolve().parents[1]
notebooks = sorted((root/'nbs').glob('[!_.]*.ipynb'))
chapters = [nb for nb in notebooks if nb.stem!='index']
sys.path.insert(0, str(root/'tools'))
from book import chapters as book  # noqa: E402
from book import finish, pictures

from brainlm import _nbdev

def cells(nb): return json.loads(nb.read_text(encoding='utf-8'))['cells']
def source(c): return ''.join(c['source'])
def number(nb): return nb.stem.split('_')[0]
def page_name(nb): return 'index.html' if nb.stem=='index' else re.sub(r'^\d+\w*?_', '', nb.stem)+'.html'
def by_name(nb): return nb.stem

class Page(HTMLParser):
    "What a page holds: links, what it loads, anchors, pictures, code, headings, the text of its cells and running text"
    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.pictures = [], [], [], []
        self.sidebar, self.code, self.signatures, self.cells = [], [], [], []
        self.titles, self.text, self.tags = [], [], []
        self.html = path.read_text(encoding='utf-8')
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag not in finish.empty: self.tags.append((tag, (a.get('class') or '').split()))
        self.ids += [o for o in (a.get('id'), a.get('name') if tag=='a' else None) if o]
        if tag=='a' and a.get('href'): self.links.append(a['href'])
        if tag=='a' and 'sidebar-link' in a.get('class', ''): self.sidebar.append(a.get('href'))
        if tag=='img': self.pictures.append(a)
        if tag=='link' and a.get('rel') in ('stylesheet','icon'): self.loads.append(a['href'])
        elif tag in ('img','script','source') and a.get('src'): self.loads.append(a['src'])
        if tag=='pre': self.code.append('')
        if tag=='td': self.cells.append('')
        if tag=='h1': self.titles.append('')

    def handle_endtag(self, tag):
        mine = tag=='pre' and not any('cell' in cs for _,cs in self.tags)
        if mine and re.match(r'def |class |@dataclass', self.code[-1]): self.signatures.append(self.code[-1])
        while self.tags and self.tags.pop()[0]!=tag: pass

    def handle_data(self, data):
        inside = [tag for tag,_ in self.tags]
        if 'pre' in inside: self.code[-1] += data
        if 'td' in inside: self.cells[-1] += data
        if 'h1' in inside: self.titles[-1] += data
        quiet = {'pre','code','script','style','title'} & set(inside)
        if not quiet: self.text.append((data, [c for _,cs in self.tags for c in cs]))

@pytest.fixture(scope='module')
def site():
    cmd = [sys.executable, str(root/'tools'/'docs.py'), '--engine', 'smalldocs', '--strict']
    if 'SITE_IS_BUILT' not in os.environ:       # set by hand, to look at the same pages again
        r = subprocess.run(cmd, cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert r.returncode==0, f'the site was not built\n{r.stdout[-5000:]}{r.stderr[-5000:]}'
    return {f:Page(f) for f in (root/'_docs').rglob('*.html')}

@pytest.fixture
def page(site, nb): return site[root/'_docs'/page_name(nb)]

def each_page(site): return {f:p for f,p in site.items() if f.parent==root/'_docs'}

# Links and loads

def test_links_lead_somewhere(site):
    bad = []
    for f,page in site.items():
        for link in page.links+page.loads:
            u = urlsplit(link)
            if u.scheme or u.netloc: continue
            to = (f.parent/unquote(u.path)).resolve() if u.path else f
            if to.is_dir(): to /= 'index.html'
            lost = u.fragment and to in site and unquote(u.fragment) not in site[to].ids
            if not to.exists() or u.path.startswith('/') or lost: bad.append(f'{f.name}: {link}')
    assert not bad, 'dead links in the site:\n'+'\n'.join(bad)

def test_needs_no_network(site):
    bad = [f'{f.name}: {o}' for f,page in site.items() for o in page.loads if urlsplit(o).netloc]
    css = {f:f.read_text(encoding='utf-8') for f in (root/'_docs').rglob('*.css')}
    away = re.compile(r'(?:url\(|@import )["\']?(https?:[^"\')]+)')
    bad += [f'{f.name}: {o}' for f,t in css.items() for o in away.findall(t)]
    assert not bad, 'loaded from elsewhere:\n'+'\n'.join(bad)

def test_has_every_page(site):
    assert {page_name(nb) for nb in notebooks}|{'api.html','glossary.html','gallery.html'} <= {f.name for f in site}

def test_one_title_and_no_anchor_twice(site):
    for f,page in site.items():
        assert len(page.titles)==1, f'{f.name} has {len(page.titles)} <h1>'
        twice = {o for o in page.ids if page.ids.count(o)>1}
        assert not twice, f'{f.name}: anchors that stand twice: {twice}'

# Definitions

def exports(nb, directive='export[is]?'):
    "The exported cells of a notebook as text, without magics"
    for c in cells(nb):
        mine = c['cell_type']=='code' and re.search(rf'^#\|\s*{directive}\b', source(c), re.M)
        if mine: yield re.sub(r'^\s*[%!].*$', '', source(c), flags=re.M)

def exported(nb):
    "The exported lines of a notebook, in their order"
    lines = [o.rstrip() for src in exports(nb) for o in src.splitlines()]
    return [o for o in lines if o and not o.startswith('#|')]

two = """
limit = 3 # at most

def _helper(x): return x

@patch
def grow(self:Tree,
    by:int=1, # metres
)->Tree: # itself
    "Taller. ValueError below 0."
    return self

@dataclass
class Tree:
    "A tree"
    height:float # metres
    rings:list=field(default_factory=list) # one a year, `#1` first
    def age(self):
        "Years"
        return len(self.rings)

last = Tree
"""

def test_parts_of_a_cell():
    parts = list(_nbdev.split_cell(two))
    assert ''.join(two.split())==''.join(''.join(parts).split()), 'a line was lost'
    assert len(parts)==2 and parts[1].endswith('last = Tree')
    grow = next(o for o in ast.parse(parts[0]).body if _nbdev.is_shown(o))
    assert _nbdev.names(grow)==['Tree.grow']
    assert _nbdev.signature(parts[0], grow).endswith('by:int=1, # metres\n)->Tree: # itself')
    tree = ast.parse(parts[1]).body[0]
    rings = ('rings', 'list', 'list()', 'one a year, `#1` first')
    assert list(_nbdev.fields(parts[1], tree))==[('height', 'float', '', 'metres'), rings]
    assert list(_nbdev.methods(tree))==[('age', '()', 'Years')]

@pytest.mark.parametrize('nb', chapters, ids=by_name)
def test_every_exported_line_is_shown_in_order(page, nb):
    shown = iter([o.rstrip() for code in page.code for o in code.splitlines()])
    missing = next((line for line in exported(nb) if line not in shown), None)      # `in` goes on from where it stopped
    assert missing is None, f'{nb.name}: not on the page, or not in its place: {missing}'

def options(nb):
    "The comments of the fields of dataclasses"
    rows = '\n'.join(exports(nb, 'export')).splitlines()
    rest = lambda o: rows[o.end_lineno-1].encode()[o.end_col_offset:].decode()
    for c in ast.walk(ast.parse('\n'.join(rows))):
        if not isinstance(c, ast.ClassDef) or not any('dataclass' in ast.unparse(d) for d in c.decorator_list): continue
        for o in c.body:
            if isinstance(o, ast.AnnAssign): yield o.target.id, rest(o).partition('#')[2].strip()

@pytest.mark.parametrize('nb', chapters, ids=by_name)
def test_options_are_listed_with_their_comments(page, nb):
    for name,comment in options(nb):
        assert name in page.cells, f'{nb.name}: the option {name} is in no table'
        assert comment.replace('`', '') in page.cells, f'{nb.name}: the comment of {name} is in no table: {comment}'

def test_options_of_the_model_are_explained(site):
    assert 'Recording.__repr__</h3>' in site[root/'_docs'/'recordings.html'].html
    nb = next(o for o in chapters if o.stem.endswith('_model'))
    assert len([o for o in options(nb) if o[1]])>=17

def is_public(klass): return isinstance(klass, ast.Name) and not klass.id.startswith('_')

def public_names(nb):
    "The names of functions and classes; methods that are patched in have their class before them"
    for o in (o for src in exports(nb, 'export') for o in ast.parse(src).body):
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)) or o.name.startswith('_'): continue
        first = o.args.args[0] if isinstance(o, ast.FunctionDef) and o.args.args else None
        if not first or first.arg not in ('self', 'cls') or not first.annotation: yield o.name
        elif is_public(first.annotation): yield f'{first.annotation.id}.{o.name}'

def test_index_lists_every_definition(site):
    index = site[root/'_docs'/'api.html']
    bad = [f'{nb.name}: {n}' for nb in chapters for n in public_names(nb) if n not in index.cells]
    assert not bad, f'not in the API index: {bad}'

@pytest.mark.parametrize('nb', chapters, ids=by_name)
def test_a_signature_is_what_its_author_wrote(page, nb):
    "Parameters that `delegates` adds are those of another function, which says itself what they are"
    lines = [o.strip() for o in exported(nb)]
    for code in page.signatures:
        bad = [o for o in code.splitlines() if not any(line.startswith(o.strip()) for line in lines)]
        assert not bad, f'{nb.name}: not in the source: {bad}'
    assert page.signatures or not [o for o in lines if o.startswith('def ')]

# The book

@pytest.mark.parametrize('nb', chapters, ids=by_name)
def test_chapter_has_its_number_and_neighbours(page, nb):
    assert page.titles[0].split()[0]==number(nb)
    order = [page_name(o) for o in chapters]
    i = order.index(page_name(nb))
    for o in order[max(0, i-1):i]+order[i+1:i+2]:
        assert f'href="{o}" class="pagination-link"' in page.html, f'{nb.name}: no way to {o}'
    assert [o for o in page.sidebar if o in order]==order, 'the sidebar is not in the order of the chapters'

@pytest.mark.parametrize('nb', chapters, ids=by_name)
def test_terms_lead_to_the_glossary(page, nb):
    found = re.findall(r'class="term" href="glossary.html#([\w-]+)"', page.html)
    assert len(found)==len(set(found)), f'{nb.name}: a term is linked more than once'
    assert found or nb.stem.endswith('_report'), f'{nb.name}: no term is linked'

def test_glossary_explains_the_words_of_the_book(site):
    want = {'parcel','patch','token','window','cls','side','rival','planted','turned-map','gaussian-start'}
    assert want <= set(site[root/'_docs'/'glossary.html'].ids)
    linked = {m for p in site.values() for m in re.findall(r'class="term" href="glossary.html#([\w-]+)"', p.html)}
    assert want <= linked, f'no chapter links {want-linked}'

@pytest.mark.parametrize('nb', chapters, ids=by_name)
def test_chapters_open_alike(page, nb):
    "First what the reader will know, which data stand behind it, and how long it runs"
    texts = [source(c) for c in cells(nb) if c['cell_type']=='markdown']
    assert texts[0].startswith('# '), f'{nb.name}: the first text is its title'
    parts = re.findall(r'^- \*\*(.+?)\*\* \S', texts[1], re.M)
    assert parts==['You will know', 'Data', 'Time'], f'{nb.name}: found {parts} under the title'
    assert re.search(r'<div class="chapter-brief">\s*<ul>\s*<li><strong>You will know</strong>', page.html), f'{nb.name}: the box at its top is empty'

def test_links_follow_the_repository(tmp_path):
    folders = dict(nbs_path=root/'nbs', lib_path=root/'brainlm')
    cfg = SimpleNamespace(git_url='https://github.com/someone/thing', branch='main', **folders)
    c = book.Chapter(Path('10_masking.ipynb'), dict(cells=[], metadata={'module':'masking'}), {}, 'masking')
    html = book.links(c, cfg)
    assert 'href="https://github.com/someone/thing/blob/main/brainlm/masking.py"' in html
    assert 'href="https://colab.research.google.com/github/someone/thing/blob/main/nbs/10_masking.ipynb"' in html
    cfg.git_url = 'https://github.com/OWNER/brainlm'
    html = book.links(c, cfg)
    assert 'OWNER' not in html and 'colab' not in html and 'href="source/masking.html"' in html

# Text and pictures

def test_options_keep_their_dashes(site):
    bad = [(f.name, t) for f,p in site.items() for t,_ in p.text if re.search(r'(?<![\w\d])[–—][a-z]\w+', t)]
    assert not bad, f'dashes were made of the options of commands: {bad[:5]}'

def test_links_are_links(site):
    "No page shows the brackets of a link: one around a symbol, say, which is a link of its own"
    bad = [(f.name, t.strip()[:60]) for f,p in each_page(site).items() for t,c in p.text if re.search(r'\]\([\w./#-]+', t) and 'cell' not in c]
    assert not bad, f'links that are shown as text: {bad[:5]}'

def test_intervals_stay_together(site):
    interval = re.compile(r'\[[−+-]?\d[\d.]*, [−+-]?\d[\d.]*[\])]')
    texts = [(f.name, t) for f,p in each_page(site).items() for t,c in p.text if 'together' not in c and 'content' in c]
    loose = [(name, t) for name,t in texts if interval.search(t)]
    assert not loose, f'intervals that may break inside their brackets: {loose[:5]}'
    one = finish.each_text('<p>0.3 [0.1, 0.5]</p>', finish.keep_together)
    assert one=='<p>0.3 <span class="together">[0.1, 0.5]</span></p>'

def test_pictures_are_files_loaded_late(site):
    for f,page in site.items():
        assert 'src="data:' not in page.html, f'{f.name} holds a picture'
        for o in page.pictures: assert o.get('loading')=='lazy' and o.get('alt') and o['src'], f'{f.name}: {o}'

def test_pictures_are_described(site):
    "In words of their own: `#| fig-alt` in the cell, a list where it draws several"
    bad = {o['src'] for p in each_page(site).values() for o in p.pictures if o['alt']==pictures.unsaid or len(o['alt'])<30}
    assert not bad, f'pictures that say nothing to those who cannot see them: {sorted(bad)}'

def test_pages_are_light(site):
    heavy = {f.name:f.stat().st_size for f in each_page(site) if f.stat().st_size>600_000}
    assert not heavy, f'pages of more than 600 kB: {heavy}'
    assert (root/'_docs'/'search.json').stat().st_size<1_000_000

def test_gallery_shows_every_picture(site):
    shown = {o['src'] for o in site[root/'_docs'/'gallery.html'].pictures}
    drawn = {o['src'] for nb in chapters for o in site[root/'_docs'/page_name(nb)].pictures}
    assert shown>={o for o in drawn if o.startswith('pictures/')} and len(drawn)>60

def test_pictures_lose_no_colour(site):
    "The site holds the bytes of the notebooks"
    text = ''.join(nb.read_text(encoding='utf-8').replace('\\n', '') for nb in notebooks)
    files = (root/'_docs'/'pictures').glob('*.png')
    bad = [f.name for f in files if base64.b64encode(f.read_bytes()).decode() not in text]
    assert not bad, f'not as they were saved: {bad}'

def test_pictures_were_saved_whole():
    """A picture of few colours loses half of a colour bar, unless its cell says that few are enough (`colours=`).

    What slow cells have saved stays until they are run again."""
    from PIL import Image
    for nb in notebooks:
        for c in cells(nb):
            if c['cell_type']!='code' or re.search(r'^#\|\s*(slow|cuda)\b|colours=', source(c), re.M): continue
            pngs = [''.join(o['data']['image/png']) for o in c['outputs'] if 'image/png' in o.get('data', {})]
            modes = {Image.open(io.BytesIO(base64.b64decode(o))).mode for o in pngs}
            assert 'P' not in modes, f'{nb.name}, cell {c["id"]}: the picture is quantised'

# In a browser

chromium = next((o for o in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if o), None)
in_browser = pytest.mark.skipif(not chromium, reason='no Chromium here (Debian: apt-get install chromium)')

def browse(url, folder, *args):
    "What headless Chromium prints for `url`; its profile is new, and it talks to nobody"
    alone = '--disable-background-networking --disable-component-update --disable-sync --disable-quic --no-first-run'
    flags = f'--headless --no-sandbox --disable-gpu {alone} --hide-scrollbars --allow-file-access-from-files'
    cmd = [chromium, *flags.split(), f'--user-data-dir={folder}', *args, url]
    return subprocess.run(cmd, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL).stdout

probe = """<!doctype html><meta charset="utf-8"><body><script>
const pages = PAGES, found = [];
const luminance = c => {
  const linear = v => v<=.03928 ? v/12.92 : ((v+.055)/1.055)**2.4;
  const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v/255));
  return .2126*r + .7152*g + .0722*b;
};
const ground = e => {
  for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c) && c!=='transparent') return c;
  }
  return 'rgb(255, 255, 255)';
};
const contrast = e => {
  const [a, b] = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort((x, y) => y-x);
  return (a+.05)/(b+.05);
};
const wait = ms => new Promise(done => setTimeout(done, ms));
const widest = e => Math.max(...e.textContent.split('\\n').map(o => o.length));
async function look(page, width) {
  const frame = document.createElement('iframe');
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.src = page;
  await new Promise(done => { frame.onload = done; document.body.append(frame); });
  const d = frame.contentDocument;
  d.querySelectorAll('details').forEach(e => e.open = true);
  const shown = d.documentElement.dataset.scheme==='alternate';
  if (shown!==DARK) frame.contentWindow.smalldocsToggleScheme();
  for (let i = 0; i<40 && (luminance(ground(d.body))<.2)!==DARK; i++) await wait(50);
  const code = [...d.querySelectorAll('main pre.sourceCode:not(.module)')];
  const o = {page, width, wide: d.documentElement.scrollWidth, body: contrast(d.body)};
  o.dark = luminance(ground(d.body))<.2;
  o.long = code.filter(e => e.scrollWidth>e.clientWidth+1 && widest(e)<=120).map(e => e.textContent.slice(0, 80));
  o.out = code.filter(e => e.getBoundingClientRect().right>width+1).map(e => e.textContent.slice(0, 80));
  if (page==='masking.html') {
    const input = d.querySelector('.smalldocs-search input');
    input.value = 'random_mask';
    input.dispatchEvent(new frame.contentWindow.Event('input'));
    for (let i = 0; i<50 && !d.querySelector('.search-result'); i++) await wait(100);
    const parts = ['title', 'section', 'text'].map(s => d.querySelector('.search-result-'+s));
    o.search = parts.filter(e => e).map(contrast);
    o.input = contrast(input);
  }
  found.push(o);
  frame.remove();
}
(async () => {
  for (const page of pages) for (const width of [1440, 390]) await look(page, width);
  const out = document.createElement('pre');
  out.id = 'found';
  out.textContent = JSON.stringify(found);
  document.body.append(out);
})();
</script>"""

@pytest.mark.slow
@in_browser
@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_pages_in_a_browser(site, tmp_path, mode):
    "Code fits its box on a screen and scrolls in it on a phone; no page is wider than the phone; text can be read"
    names = [f.name for f in each_page(site)]
    f = root/'_docs'/f'probe-{mode}.html'
    f.write_text(probe.replace('PAGES', json.dumps(names)).replace('DARK', json.dumps(mode=='dark')), encoding='utf-8')
    try: html = browse(f.as_uri(), tmp_path, '--virtual-time-budget=120000', '--window-size=1500,1000', '--dump-dom')
    finally: f.unlink()
    found = json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', html, re.S)[1]))
    assert len(found)==2*len(names)
    for o in found:
        assert o['dark']==(mode=='dark') and o['body']>7, f'{o["page"]}: text of contrast {o["body"]:.1f}'
        assert o['wide']<=o['width'], f'{o["page"]} is {o["wide"]} pixels wide on a screen of {o["width"]}'
        assert not o['out'], f'{o["page"]}: code runs out of its box: {o["out"][:3]}'
        assert o['width']<1440 or not o['long'], f'{o["page"]}: code of 120 characters does not fit: {o["long"][:3]}'
        if 'search' not in o: continue
        assert len(o['search'])==3, 'the search finds nothing'
        assert min(o['search'])>4.5 and o['input']>4.5, f'the search has a contrast of {o["search"]}'

@pytest.mark.slow
@in_browser
def test_pictures_of_pages(site, tmp_path):
    "A screen is painted in both modes, light on dark and dark on light"
    from PIL import Image
    for mode,name in [('light','index'), ('dark','model'), ('light','gallery'), ('dark','recordings')]:
        png = tmp_path/f'{name}-{mode}.png'
        scheme = f'--blink-settings=preferredColorScheme={int(mode=="light")}'
        browse((root/'_docs'/f'{name}.html').as_uri(), tmp_path/'profile', scheme, '--virtual-time-budget=3000',
               '--window-size=1440,1000', f'--screenshot={png}')
        grey = Image.open(png).convert('L')
        middle = sorted(grey.resize((72, 50)).tobytes())[1800]
        assert (middle>200)==(mode=='light') and len(grey.getcolors())>50, f'{name} in {mode} mode is not painted'
