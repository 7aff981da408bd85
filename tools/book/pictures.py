"Pictures become files that load when they come into sight, and a gallery that leads to the cells that made them"
import base64
import re
import struct
from dataclasses import dataclass
from html import escape, unescape

from smalldocs.notebook import cell_options

from .chapters import join

inside = re.compile(r'<img ([^>]*)src="data:image/png;base64,([^"]+)"[^>]*>') # a picture in a page that a cell shows
unsaid = 'A figure; the text around it says what it shows'

@dataclass
class Picture:
    "A saved picture of a cell"
    file: str # Where it lies in the site
    alt: str # What it shows, in words
    caption: str # Its caption, or ''
    size: tuple # (width, height) in CSS pixels
    at: str # The anchor of the cell that made it

    def img(self):
        w,h = self.size
        size = f'width="{w}" height="{h}"'
        return f'<img src="{self.file}" {size} class="img-fluid" loading="lazy" alt="{escape(self.alt)}">'

    def html(self):
        cap = f'<figcaption>{escape(self.caption)}</figcaption>' if self.caption else ''
        return f'<figure class="figure">{self.img()}{cap}</figure>'

def png_size(png): return struct.unpack('>II', png[16:24])

def take_out(chapter, dest):
    "Write the pictures of `chapter` below `dest`, put a reference in their place, and say which there are"
    cells, found = [], []
    for cell in chapter.nb['cells']:
        mine = [] if cell['cell_type']!='code' else list(pictures(cell, chapter.page, dest))
        mark = '' if not mine else f'```{{=html}}\n<a class="target" id="{mine[0].at}"></a>\n```'
        if mine: cells.append(dict(cell_type='markdown', metadata={}, source=mark))
        cells.append(cell)
        found += mine
    chapter.nb['cells'] = cells
    return found

def write(png, name, dest):
    (dest/name).parent.mkdir(exist_ok=True)
    (dest/name).write_bytes(png)
    return name

def pictures(cell, page, dest):
    "The pictures of one cell, each written to its file and shown in the size that it was drawn for"
    opts,_ = cell_options(join(cell['source']))
    cap, at = str(opts.get('fig-cap') or ''), f"at-{cell['id']}"
    said = [opts.get('fig-alt')] if not isinstance(opts.get('fig-alt'), list) else opts['fig-alt']
    said = iter(said)       # a cell with several pictures may say a list
    for n,out in enumerate(cell.get('outputs', [])):
        data, name = out.get('data') or {}, f"pictures/{page}-{cell['id']}{f'-{n}' if n else ''}.png"
        if 'image/png' in data:
            png = base64.b64decode(join(data['image/png']))
            shown = out.get('metadata', {}).get('image/png') or {}
            w,h = png_size(png)
            width = shown.get('width', w)
            size = width, shown.get('height', round(h*width/w))
            pic = Picture(write(png, name, dest), str(next(said, None) or cap or unsaid), cap, size, at)
            out['data'] = {'text/html':pic.html()}
            yield pic
        elif found := inside.search(html := join(data.get('text/html', ''))):
            png = base64.b64decode(found[2])
            alt = unescape(re.search(r'alt="([^"]*)"', found[0])[1])
            pic = Picture(write(png, name, dest), alt, '', png_size(png), at)
            data['text/html'] = html.replace(found[0], pic.img())
            yield pic

def thumbnail(pic, page):
    words = f'<span>{escape(pic.caption or pic.alt)}</span>'
    return f'<a class="picture" href="{page}.html#{pic.at}">{pic.img()}{words}</a>\n'

def gallery(chapters):
    "The Markdown of the gallery: (chapter, its pictures) for each chapter"
    about = 'Every picture of the book; each leads to the cell that drew it'
    parts = [f'---\ntitle: "Gallery"\ndescription: "{about}"\n---\n']
    for chapter,pics in chapters:
        if not pics: continue
        items = ''.join(thumbnail(o, chapter.page) for o in pics)
        parts.append(f'## {chapter.name} {{#chapter-{chapter.page}}}\n')
        parts.append(f'```{{=html}}\n<div class="gallery">\n{items}</div>\n```\n')
    return '\n'.join(parts)
