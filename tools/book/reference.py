"Pages to look things up in: the source of the modules, and an index of everything that they define"
import re
from html import escape
from itertools import groupby

from smalldocs.highlight import highlight

def source_page(py):
    "The page that shows the module `py`, for the `source` links; its line 7 is `#L-7`"
    rows = highlight(py.read_text(encoding='utf-8').rstrip('\n'), 'python').split('\n')
    html, inside = [], ''
    for n,text in enumerate(rows, 1):       # a span that goes over several lines is closed and opened at each end
        text, end = inside+text, ''
        spans = re.findall(r'<span class="\w+">|</span>', text)
        inside = spans[-1] if spans and spans[-1]!='</span>' else ''
        if inside: end = '</span>'
        html.append(f'<span id="L-{n}" data-n="{n}">{text}{end}</span>')
    body = '\n'.join(html)
    head = f'---\ntitle: "{py.parent.name}/{py.name}"\ntoc: false\nsearch: false\npage-navigation: false\n---\n'
    pre = f'<pre class="sourceCode module"><code class="sourceCode python">{body}</code></pre>'
    return f'{head}\n```{{=html}}\n{pre}\n```\n'

def inline(text): return re.sub(r'`([^`]+)`', r'<code>\1</code>', escape(' '.join(text.split())))

def entries(chapters):
    "(definition, chapter) of all that is public, by name"
    found = [(d, c) for c in chapters for d in c.definitions if not d['name'].startswith('__')]
    return sorted(found, key=lambda o: (o[0]['name'].lower(), o[0]['name'], o[1].number))

def row(d, chapter):
    "One row of the index: the name, what it is for, its chapter"
    name = f'<a href="{chapter.page}.html#{escape(d["at"])}"><code>{escape(d["name"])}</code></a>'
    cells = name, inline(d['doc']) or d['kind'], f'<a href="{chapter.page}.html">{escape(chapter.number)}</a>'
    return '<tr>'+''.join(f'<td>{o}</td>' for o in cells)+'</tr>'

def api_index(chapters):
    "The Markdown of the index of definitions"
    rows = entries(chapters)
    about = f'{len(rows)} functions, classes and constants, each with the chapter that explains it'
    parts = [f'---\ntitle: "API index"\ndescription: "{about}"\ntoc-depth: 2\n---\n']
    for letter,group in groupby(rows, key=lambda o: o[0]['name'][0].upper()):
        table = '\n'.join(row(d, c) for d,c in group)
        parts.append(f'## {letter}\n\n```{{=html}}\n<table class="index">\n{table}\n</table>\n```\n')
    return '\n'.join(parts)
