"""Write `README.md` from `nbs/index.ipynb`, and the figures that its cells draw to `figures/<label>.png`; with `--check` only say what differs. The version
of `settings.ini` goes into `brainlm/__init__.py` and `CITATION.cff`.

Hidden cells are left out. A cell that draws a figure says `#| label: name` and `#| fig-alt: "what it shows"`."""
import argparse
import base64
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parents[1]

def join(o): return ''.join(o) if isinstance(o, list) else o

def linked(text):
    "Links to notebooks, as they stand from here"
    return re.sub(r'\]\((\w+\.ipynb|glossary\.md)', r'](nbs/\1', text)

def outputs(cell, opts, files):
    "Markdown for the saved outputs of `cell`; its pictures go to `files`"
    for o in cell['outputs']:
        data = {k:join(v) for k,v in o.get('data', {}).items()}
        if 'image/png' in data:
            if not {'label','fig-alt'} <= opts.keys(): raise ValueError(f"index.ipynb, cell {cell['id']}: a cell that draws needs `#| label: name` and `#| fig-alt: text`")
            files[f"figures/{opts['label']}.png"] = base64.b64decode(data['image/png'])
            yield f"![{opts['fig-alt']}](figures/{opts['label']}.png)"
        elif 'text/markdown' in data: yield linked(data['text/markdown'].strip())
        elif txt := join(o['text']) if o['output_type']=='stream' and o['name']=='stdout' else data.get('text/plain'): yield f'```\n{txt.rstrip()}\n```'

def build(nb):
    "The files that `nb`, the index notebook, asks for: path -> bytes"
    parts,files = ['<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook. -->'],{}
    for c in nb['cells']:
        src = join(c['source'])
        if c['cell_type']=='markdown':
            src = re.sub(r'<!--.*?-->', '', src, flags=re.S).replace('](../', '](')
            parts.append(re.sub(r'\]\((\w+\.ipynb|glossary\.md)', r'](nbs/\1', src).strip())
        elif c['cell_type']=='code':
            opts = dict(re.findall(r'^#\|\s*([\w-]+):?[ \t]*"?(.*?)"?$', src, flags=re.M))
            code = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip()
            if 'hide' in opts or not code: continue
            if opts.get('echo')!='false': parts.append(f'```python\n{code}\n```')
            parts += outputs(c, opts, files)
    return {'README.md':('\n\n'.join(o for o in parts if o)+'\n').encode(), **files}

def versions():
    "The files that repeat the version of `settings.ini`: path -> bytes"
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(root/'settings.ini', encoding='utf-8')
    new = ini['DEFAULT']['version']
    places = {'brainlm/__init__.py': (r'(?m)^(__version__ = ").*(")$', rf'\g<1>{new}\2'), 'CITATION.cff': (r'(?m)^(version: ).*$', rf'\g<1>{new}')}
    return {f: re.sub(*o, (root/f).read_text(encoding='utf-8'), count=1).encode() for f,o in places.items()}

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--check', action='store_true', help='write nothing; fail if a file would change')
    a = p.parse_args()
    new = build(json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8'))) | versions()
    stale = [f for f,b in new.items() if not (root/f).exists() or (root/f).read_bytes()!=b]
    if a.check: sys.exit(f"{', '.join(stale)}: not what nbs/index.ipynb and settings.ini say; run `make readme`" if stale else 0)
    for f in stale:
        (root/f).parent.mkdir(exist_ok=True)
        (root/f).write_bytes(new[f])
    print('written: '+', '.join(stale) if stale else 'README.md is in step with nbs/index.ipynb, and versions with settings.ini')

if __name__=='__main__': main()
