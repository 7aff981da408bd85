"Chapters: their numbers, names, openings and links, from the notebooks that nbdev has processed"
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from brainlm._nbdev import repository

def join(o): return ''.join(o) if isinstance(o, list) else o

brief_start = '- **You will know**'

@dataclass
class Chapter:
    "One notebook on its way to a page"
    path: Path # The processed notebook
    nb: dict # Its content
    front: dict # Its front matter: title, description
    page: str # The name of its page, without `.html`

    @property
    def number(self):
        "`00a` of `00a_atlas.ipynb`; '' of the front page"
        m = re.match(r'(\d+\w*?)_', self.path.name)
        return m[1] if m else ''

    @property
    def title(self): return str(self.front.get('title', self.page))

    @property
    def name(self): return f'{self.number} {self.title}'.strip()

    @property
    def definitions(self): return self.nb['metadata'].get('definitions', [])

def read(path, nb):
    "The chapter of a processed notebook, whose first cell is its front matter"
    first = join(nb['cells'][0]['source']) if nb['cells'] else ''
    front = yaml.safe_load(first.strip().strip('-')) if first.startswith('---') else {}
    page = str(front.get('output-file', path.stem)).removesuffix('.html')
    return Chapter(path, nb, front, page)

def front_matter(chapter):
    "The front matter of its page: the number of the chapter stands before its title"
    front = {k:v for k,v in chapter.front.items() if k!='output-file'}
    if chapter.number: front['title'] = f'[{chapter.number}]{{.chapter-number}} {chapter.title}'
    return f'---\n{yaml.safe_dump(front, allow_unicode=True, width=1000)}---\n'

def links(chapter, cfg):
    "HTML for the links to what the page was made from: the module, the notebook, and Colab where there is a repository"
    repo, module = repository(cfg), chapter.nb['metadata'].get('module')
    nb = f'{cfg.nbs_path.name}/{chapter.path.name}'
    tree = f'{repo}/blob/{cfg.branch}'
    found = []
    py = f'{cfg.lib_path.name}/{module}.py'
    if module: found.append((f'{tree}/{py}' if repo else f'source/{module}.html', py))
    found.append((f'{tree}/{nb}' if repo else f'notebooks/{chapter.path.name}', nb))
    if 'github.com' in repo:
        colab = repo.replace('https://github.com', 'https://colab.research.google.com/github')
        found.append((f'{colab}/blob/{cfg.branch}/{nb}', 'Open in Colab'))
    return '<p class="chapter-links">Made from '+' · '.join(f'<a href="{to}">{name}</a>' for to,name in found)+'</p>'

def opening(chapter, cfg):
    "The cell at the top of a chapter: its three bullets, which may stand below its question, and where it comes from"
    text = ''
    for c in [c for c in chapter.nb['cells'] if c['cell_type']=='markdown']:
        if not (m := re.search(rf'^{re.escape(brief_start)}.*?(?=\n\n(?!- )|\Z)', join(c['source']), re.M | re.S)): continue
        text = m[0]
        c['source'] = join(c['source']).replace(text, '').strip()
        if not c['source']: chapter.nb['cells'].remove(c)
        break
    source = f'::: {{.chapter-brief}}\n{text}\n\n```{{=html}}\n{links(chapter, cfg)}\n```\n:::\n'
    return dict(cell_type='markdown', metadata={}, source=source)

def words(text):
    "Options such as `--tr` in running text become code, or dashes would be made of them; what is code already stays"
    parts = re.split(r'(```.*?```|`[^`]*`|<[^>]*>|\]\([^)]*\))', text, flags=re.S)
    mark = lambda s: re.sub(r'(?<![\w-])--[a-z][\w-]*', r'`\g<0>`', s)
    return ''.join(o if i%2 else mark(o) for i,o in enumerate(parts))

def free_anchors(chapter):
    "A heading that reads as a symbol of its chapter leaves the anchor of that name to the symbol"
    taken = set(chapter.nb['metadata'].get('anchors', []))
    def name(m):
        slug = re.sub(r'[^\w.-]+', '-', re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', m[2]).lower()).strip('-')
        return f'{m[0]} {{#about-{slug}}}' if slug in taken else m[0]
    for c in chapter.nb['cells']:
        if c['cell_type']=='markdown': c['source'] = re.sub(r'^(#+) ([^{\n]+)$', name, join(c['source']), flags=re.M)

def one_title(cells):
    "Headings one level down, if a chapter has more titles than the one in its front matter"
    texts = [c for c in cells if c['cell_type']=='markdown']
    parts = lambda c: re.split(r'(^```.*?^```)', join(c['source']), flags=re.S|re.M)
    if not any(re.search(r'^# ', o, re.M) for c in texts for o in parts(c)[::2]): return
    lower = lambda text: re.sub(r'^(#{1,5}) ', r'#\1 ', text, flags=re.M)
    for c in texts: c['source'] = ''.join(o if i%2 else lower(o) for i,o in enumerate(parts(c)))
